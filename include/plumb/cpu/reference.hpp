// The oracle of the kernel tests: what each kernel computes, as naive loops in double precision.
// Not included by the engine, not fast, in no particular order of reduction.
#pragma once

#include <plumb/cpu/reference_attention.hpp>
#include <plumb/cpu/reference_elementwise.hpp>
#include <plumb/cpu/reference_gemm.hpp>
#include <plumb/cpu/reference_head.hpp>
#include <plumb/cpu/reference_loss.hpp>
#include <plumb/cpu/reference_norm.hpp>
#include <plumb/cpu/reference_optimizer.hpp>
#include <plumb/cpu/reference_rows.hpp>
