# Cross-compiles for 64-bit Arm Linux with the packages of Debian and Ubuntu (g++-aarch64-linux-gnu);
# programs linked statically run under qemu-aarch64 without more files.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
find_program(SPECDEC_QEMU_AARCH64 NAMES qemu-aarch64 qemu-aarch64-static)
if(SPECDEC_QEMU_AARCH64)
  set(CMAKE_CROSSCOMPILING_EMULATOR "${SPECDEC_QEMU_AARCH64}")
endif()
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
