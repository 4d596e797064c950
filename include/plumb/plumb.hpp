// Plumb, the CPU engine in one include. See docs/reading-order.md for where to begin.
#pragma once

#include <plumb/core/bf16.hpp>
#include <plumb/core/version.hpp>
#include <plumb/cpu/kernels.hpp>
#include <plumb/nn/likelihood.hpp>
#include <plumb/ops/checkpoint.hpp>
#include <plumb/ops/matmul.hpp>
#include <plumb/ops/reduce.hpp>
#include <plumb/optim/adamw.hpp>
#include <plumb/optim/momentum.hpp>
#include <plumb/optim/schedule.hpp>
#include <plumb/rlhf/best_of_n.hpp>
#include <plumb/rlhf/fragility.hpp>
#include <plumb/rlhf/group.hpp>
#include <plumb/rlhf/head_ensemble.hpp>
#include <plumb/rlhf/ppo.hpp>
#include <plumb/rlhf/preference.hpp>
#include <plumb/rlhf/ratings.hpp>
#include <plumb/rlhf/reward_head.hpp>
#include <plumb/rlhf/reward_model.hpp>
#include <plumb/rlhf/sft.hpp>
