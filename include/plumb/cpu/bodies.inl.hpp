// Every kernel body, in order of dependence. Included once per instruction set, inside its
// namespace, by simd_for_each.hpp.
#include <plumb/math/elementwise.inl.hpp>
#include <plumb/math/adamw.inl.hpp>
#include <plumb/cpu/elementwise.inl.hpp>
#include <plumb/cpu/gemm.inl.hpp>
#include <plumb/cpu/attention.inl.hpp>
#include <plumb/cpu/rows.inl.hpp>
#include <plumb/cpu/norm.inl.hpp>
#include <plumb/cpu/optimizer.inl.hpp>
#include <plumb/cpu/head.inl.hpp>
#include <plumb/cpu/reduce.inl.hpp>
#include <plumb/cpu/sampling.inl.hpp>
