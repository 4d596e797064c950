// The CPU backend in one include: every kernel, for scalar, AVX2 and AVX-512, or NEON.
//
// Each family's bodies (`*.inl.hpp`) are compiled three times, each time inside a region that turns
// an instruction set on and in a namespace of its own; a table per family holds the three. (On ARM
// twice: NEON is there in any case.) No compiler flag is needed, one binary serves every processor,
// and no function exists in two versions under one name. A program of many files can link
// plumb::kernels instead, a library that holds the tables: it defines PLUMB_KERNELS_SEPARATE, and
// the bodies are then compiled once for all.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/math/kl.hpp>

// Before the kernels, which call one another: a look-up there must not find them missing.
namespace plumb { inline namespace v0_1 {
template <>
inline constexpr bool backend_included<Cpu> = true;
template <>
inline constexpr bool backend_included<CpuBf16> = true;
}}  // namespace plumb::v0_1

#include <plumb/core/pool.hpp>
#include <plumb/cpu/attention.hpp>
#include <plumb/cpu/double.hpp>
#include <plumb/cpu/elementwise.hpp>
#include <plumb/cpu/gemm.hpp>
#include <plumb/cpu/head.hpp>
#include <plumb/cpu/int8.hpp>
#include <plumb/cpu/isa.hpp>
#include <plumb/cpu/loss.hpp>
#include <plumb/cpu/norm.hpp>
#include <plumb/cpu/optimizer.hpp>
#include <plumb/cpu/reduce.hpp>
#include <plumb/cpu/rows.hpp>
#include <plumb/cpu/sampling.hpp>
#include <plumb/math/backend.hpp>

#include <cstdint>

#if !defined(PLUMB_KERNELS_SEPARATE) || defined(PLUMB_KERNELS_IMPLEMENTATION)

#define PLUMB_BODIES <plumb/cpu/bodies.inl.hpp>
#define PLUMB_BODIES_IN plumb::inline v0_1::kernels
#include <plumb/cpu/simd_for_each.hpp>

// Losses are short arrays: one version, so the same bits everywhere.
#define PLUMB_FORMULA inline
#include <plumb/cpu/simd_begin_scalar.hpp>
namespace plumb { inline namespace v0_1 { namespace kernels::scalar {
using Real = float;
#include <plumb/math/loss.inl.hpp>

#include <plumb/cpu/loss.inl.hpp>

inline const LossTable& loss_table() {
  static constexpr LossTable table{
      .ppo_policy = ppo_policy,
      .ppo_value = ppo_value,
      .kl = kl,
      .weighted_sum = weighted_sum,
      .segment_sum = segment_sum,
      .segment_spread = segment_spread,
      .kto = kto,
      .log_odds_forward = log_odds_forward,
      .log_odds_backward = log_odds_backward,
      .ranking = ranking,
  };
  return table;
}
}}}  // namespace plumb::v0_1::kernels::scalar
#include <plumb/cpu/simd_end.hpp>
#undef PLUMB_FORMULA

#define PLUMB_TABLE_FOR(Table, table)                          \
  template <>                                                  \
  PLUMB_TABLE_LINKAGE const Table& table_for<Table>(Isa isa) { \
    return PLUMB_FOR_ISA(isa, table)();                        \
  }

#define PLUMB_SCALAR_TABLE_FOR(Table, table)               \
  template <>                                              \
  PLUMB_TABLE_LINKAGE const Table& table_for<Table>(Isa) { \
    return scalar::table();                                \
  }

#if defined(PLUMB_KERNELS_IMPLEMENTATION)
#define PLUMB_TABLE_LINKAGE
#else
#define PLUMB_TABLE_LINKAGE inline
#endif

#else  // the library plumb::kernels defines the tables
#define PLUMB_TABLE_LINKAGE
#define PLUMB_TABLE_FOR(Table, table) \
  template <>                         \
  const Table& table_for<Table>(Isa isa);
#define PLUMB_SCALAR_TABLE_FOR(Table, table) PLUMB_TABLE_FOR(Table, table)
#endif

namespace plumb { inline namespace v0_1 {
namespace kernels {
PLUMB_TABLE_FOR(ElementwiseTable, elementwise_table)
PLUMB_TABLE_FOR(GemmTable, gemm_table)
PLUMB_TABLE_FOR(GemmBf16Table, gemm_bf16_table)
PLUMB_TABLE_FOR(AttentionTable, attention_table)
PLUMB_TABLE_FOR(NormTable, norm_table)
PLUMB_TABLE_FOR(RowsTable, rows_table)
PLUMB_TABLE_FOR(OptimizerTable, optimizer_table)
PLUMB_TABLE_FOR(HeadTable, head_table)
PLUMB_TABLE_FOR(ReduceTable, reduce_table)
PLUMB_TABLE_FOR(SamplingTable, sampling_table)
PLUMB_SCALAR_TABLE_FOR(LossTable, loss_table)
}  // namespace kernels

static_assert(Backend<Cpu> && Backend<CpuBf16>, "the CPU backend lacks a kernel");

}}  // namespace plumb::v0_1

#undef PLUMB_TABLE_FOR
#undef PLUMB_SCALAR_TABLE_FOR
#undef PLUMB_TABLE_LINKAGE
