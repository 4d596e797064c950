// A computation whose result shows any difference in rounding, as one number: one training step of
// a tiny transformer, forward, backward and AdamW. Each translation unit has its own copy (hence
// static); the inline functions of Plumb that it calls are shared by both, and the linker keeps
// either unit's.
#pragma once

#include <plumb/plumb.hpp>

#include <bit>
#include <cstdint>

static std::uint64_t compute() {
  using namespace plumb;
  const Model<Cpu> model({.vocab = 32,
                          .context = 16,
                          .channels = 24,
                          .layers = 1,
                          .heads = 4,
                          .kv_heads = 2,
                          .hidden = 40},
                         1);
  PackedBatch packed;
  packed.add(std::vector<std::int32_t>{1, 5, 9, 2, 7, 30, 3});
  packed.add(std::vector<std::int32_t>{4, 4, 8});
  const auto targets =
      Tensor<Cpu, std::int32_t>::from({5, 9, 2, 7, 30, 3, 1, 4, 8, 1}, {packed.size()});
  AdamW<Cpu> optimizer(model.parameters(), {});
  Tape tape;
  const auto hidden = model.transformer()(Batch<Cpu>::from(packed));
  tape.backward(cross_entropy(hidden, model.transformer().head(), targets));
  const float norm = optimizer.step();

  std::uint64_t hash = 14695981039346656037U ^ std::bit_cast<std::uint32_t>(norm);  // FNV-1a
  for (const float value : model.parameters().flat().to_vector())
    hash = (hash ^ std::bit_cast<std::uint32_t>(value)) * 1099511628211U;
  return hash;
}
