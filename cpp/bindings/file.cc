// inspect(): what a GGUF file says about itself, without its weights.
#include <algorithm>

#include "base/error.h"
#include "bindings/common.h"
#include "bindings/native_call.h"
#include "gguf/reader.h"
#include "model/config.h"

namespace specdec::bindings {
namespace {

py::object scalar(const GgufValue& value) {
  switch (value.type()) {
    case GgufType::kString:
      return to_text(value.as_string());
    case GgufType::kBool:
      return py::bool_(value.as_bool());
    case GgufType::kF32:
    case GgufType::kF64:
      return py::float_(value.as_f64());
    case GgufType::kU64:
      return py::int_(value.as_u64());
    default:
      return py::int_(value.as_i64());
  }
}

py::object array(const GgufValue& value) {
  py::list items;
  const GgufType type = value.element_type();
  if (type == GgufType::kString) {
    for (const std::string_view text : value.as_string_array()) items.append(to_text(text));
  } else {
    const std::uint32_t size = gguf_value_type_bytes(type);
    for (std::uint64_t i = 0; i < value.count(); ++i) {
      items.append(scalar(GgufValue(type, type, value.data() + i * size, 1, size)));
    }
  }
  return items;
}

}  // namespace

Fields metadata_dict(const GgufFile& file, std::uint64_t max_array) {
  Fields result;
  for (const GgufEntry& entry : file.entries()) {
    py::object value;
    if (!entry.value.is_array()) {
      value = scalar(entry.value);
    } else if (entry.value.count() <= max_array) {
      value = array(entry.value);
    } else {
      value = py::str("(" + entry.value.type_name() + ", " + std::to_string(entry.value.count()) +
                      " items)");
    }
    result[to_text(entry.key)] = value;
  }
  file.check_whole();
  return result;
}

void bind_file(py::module_& m) {
  m.def(
      "inspect",
      [](const py::bytes& path_bytes, std::uint64_t max_array) {
        const std::string path = path_bytes;
        std::shared_ptr<const GgufFile> file;
        std::vector<std::string> warnings;
        std::string problem;
        {
          const NativeCall call;
          file = GgufFile::open(path);
          warnings = file->warnings();
          try {
            (void)read_model_config(*file, &warnings);
          } catch (const Error& error) {
            problem = error.what();
          }
        }
        py::list tensors;
        for (const TensorInfo& tensor : file->tensors()) {
          tensors.append(py::make_tuple(to_text(tensor.name), dtype_traits(tensor.dtype).name,
                                        py::tuple(py::cast(tensor.shape)), tensor.n_bytes,
                                        tensor.offset));
        }
        Fields result;
        result["version"] = file->version();
        result["size_bytes"] = file->total_size();
        result["n_parts"] = file->n_parts();
        result["metadata"] = metadata_dict(*file, max_array);
        result["tensors"] = tensors;
        result["warnings"] = warnings;
        result["problem"] = to_text(problem);
        return result;
      },
      py::arg("path"), py::kw_only(), py::arg("max_array"));
}

}  // namespace specdec::bindings
