// The kernels for AMX as they are shipped, on a processor without AMX: each tile instruction stops
// the thread with SIGILL, whose handler does what the instruction would have done.
#include "standin.h"

#if defined(__x86_64__) && defined(__linux__) && !defined(SPECDEC_SCALAR_ONLY)
#include <cpuid.h>
#include <signal.h>
#include <ucontext.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>

#include "backend/cpu/wide/tile_registers.h"

#define SPECDEC_KERNELS standin_trapped
#include "standin_registers.h"

namespace specdec {
namespace {

using standin_trapped::Registers;

constexpr int kByNumber[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                             REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                             REG_R12, REG_R13, REG_R14, REG_R15};

struct sigaction g_before;

// An instruction with a three-byte VEX prefix, as Intel's manual has it.
struct Decoded {
  unsigned prefix, opcode;
  bool in_memory;
  int reg, rm, vvvv;           // numbers of registers
  std::int64_t start, stride;  // of an operand in memory: base + offset, index * scale
  int length;
};

Decoded decode(const std::uint8_t* p, const greg_t* registers) {
  Decoded out{};
  const int r = (p[1] & 0x80) == 0 ? 8 : 0;
  const int x = (p[1] & 0x40) == 0 ? 8 : 0;
  const int b = (p[1] & 0x20) == 0 ? 8 : 0;
  out.prefix = p[2] & 3U;
  out.vvvv = ~(p[2] >> 3) & 15;
  out.opcode = p[3];
  const int mod = p[4] >> 6;
  out.reg = (p[4] >> 3 & 7) + r;
  out.rm = (p[4] & 7) + b;
  out.in_memory = mod != 3;
  out.length = 5;
  if (!out.in_memory) return out;
  const auto value = [&](int number) { return std::int64_t{registers[kByNumber[number]]}; };
  int base = out.rm;
  if ((p[4] & 7) == 4) {
    const int index = (p[5] >> 3 & 7) + x;
    base = (p[5] & 7) + b;
    if (index != 4) out.stride = value(index) << (p[5] >> 6);
    out.length = 6;
  }
  const bool only_offset = mod == 0 && base % 8 == 5;
  std::int32_t offset = 0;
  if (mod == 1) {
    offset = static_cast<std::int8_t>(p[out.length]);
    out.length += 1;
  } else if (mod == 2 || only_offset) {
    std::memcpy(&offset, p + out.length, 4);
    out.length += 4;
  }
  out.start = (only_offset ? 0 : value(base)) + offset;
  if (only_offset && (p[4] & 7) == 5) out.start += reinterpret_cast<std::int64_t>(p) + out.length;
  return out;
}

// False: no instruction of tiles.
bool execute(const Decoded& i) {
  if (i.opcode == 0x49 && i.prefix == 0 && i.in_memory && i.reg == 0) {
    TileConfig config;
    std::memcpy(&config, reinterpret_cast<const void*>(i.start + i.stride), sizeof config);
    Registers::configure(config);
  } else if (i.opcode == 0x49 && i.prefix == 0 && !i.in_memory && i.reg == 0) {
    Registers::release();
  } else if (i.opcode == 0x49 && i.prefix == 3 && !i.in_memory) {
    Registers::zero(i.reg);
  } else if (i.opcode == 0x4B && i.prefix == 3 && i.in_memory) {
    Registers::load(i.reg, reinterpret_cast<const void*>(i.start), i.stride);
  } else if (i.opcode == 0x4B && i.prefix == 2 && i.in_memory) {
    Registers::store(i.reg, reinterpret_cast<void*>(i.start), i.stride);
  } else if (i.opcode == 0x5E && (i.prefix == 2 || i.prefix == 3) && !i.in_memory) {
    Registers::dot(i.reg, i.rm, i.vvvv, i.prefix == 3);
  } else {
    return false;
  }
  return true;
}

void on_illegal_instruction(int, siginfo_t*, void* context) {
  greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const auto* p = reinterpret_cast<const std::uint8_t*>(registers[REG_RIP]);
  if (p[0] == 0xC4 && (p[1] & 31) == 2) {
    const Decoded instruction = decode(p, registers);
    if (execute(instruction)) {
      registers[REG_RIP] += instruction.length;
      return;
    }
  }
  (void)::sigaction(SIGILL, &g_before, nullptr);  // it happens again there
}

}  // namespace

bool can_trap_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d >> 24 & 1U) == 0;
}

void trap_tiles() {
  static const bool done = [] {
    struct sigaction action = {};
    action.sa_sigaction = on_illegal_instruction;
    action.sa_flags = SA_SIGINFO;
    return ::sigaction(SIGILL, &action, &g_before) == 0;
  }();
  if (!done) throw std::runtime_error("no handler of SIGILL");
}

}  // namespace specdec
#else
namespace specdec {
bool can_trap_tiles() { return false; }
void trap_tiles() {}
}  // namespace specdec
#endif
