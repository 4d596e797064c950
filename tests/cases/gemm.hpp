// Cases of cpu/gemm.hpp: C (M, N) = A·B in the three forms.
#pragma once

#include <plumb/math/gemm.hpp>

#include <array>
#include <cstddef>
#include <string>

#include "work.hpp"

namespace cases::gemm {

using plumb::Form;

struct Case {
  Form form;
  Index m, n, k;
};

inline constexpr Form kForms[] = {Form::NN, Form::NT, Form::TN};

/// A linear layer: inputs and outputs of each token.
struct Layer {
  Index inputs, outputs;
};

/// A layer's products at so many tokens: NT and NN its forward pass with weights (out, in) and (in,
/// out), the latter also the gradient of another layer's inputs; TN the gradient of its weights.
constexpr Case of_layer(Form form, Index tokens, Layer layer) {
  if (form == Form::TN) return {form, layer.outputs, layer.inputs, tokens};
  return {form, tokens, layer.outputs, layer.inputs};
}

template <std::size_t Forms, std::size_t Tokens, std::size_t Layers>
constexpr auto crossed(const Form (&forms)[Forms], const Index (&tokens)[Tokens],
                       const Layer (&layers)[Layers]) {
  std::array<Case, Forms * Tokens * Layers> all{};
  std::size_t next = 0;
  for (const Form form : forms)
    for (const Index count : tokens)
      for (const Layer& layer : layers) all[next++] = of_layer(form, count, layer);
  return all;
}

/// Around the tiles (3 × 4, 6 × 16, 12 × 32), the block of 96 rows and the chunk of 256; each is
/// meant for all kForms.
struct Size {
  Index m, n, k;
};
inline constexpr Size kSmall[] = {
    {1, 1, 1},     {2, 7, 31},     {7, 2, 33},    {1, 65, 255},  {3, 33, 256},   {5, 31, 257},
    {12, 32, 64},  {13, 33, 65},   {24, 96, 64},  {25, 64, 300}, {95, 17, 9},    {96, 64, 64},
    {97, 31, 127}, {31, 129, 513}, {193, 63, 70}, {200, 5, 520}, {260, 70, 300}, {64, 256, 1},
    {4, 2, 1000},  {0, 5, 7},      {5, 0, 7}};

/// The yardstick's layers, those of small models and GPT-2.
inline constexpr Index kTokens[] = {1, 2, 4, 8, 16, 64, 512, 2048};
inline constexpr Layer kLayers[] = {{256, 768}, {256, 1024}, {1024, 256}, {768, 3072}, {3072, 768}};
inline constexpr auto kTimed = crossed(kForms, kTokens, kLayers);

/// Generation's products, whose weights were packed before.
inline constexpr Form kPackedForms[] = {Form::NT};
inline constexpr Index kFewTokens[] = {1, 2, 4, 8, 16, 64};
inline constexpr auto kTimedPacked = crossed(kPackedForms, kFewTokens, kLayers);

/// In bf16, and of those with the weights alone in bf16, some.
inline constexpr Index kBf16Tokens[] = {64, 512, 2048};
inline constexpr auto kTimedBf16 = crossed(kForms, kBf16Tokens, kLayers);
inline constexpr Index kMixedTokens[] = {1, 16};
inline constexpr auto kTimedMixed = crossed(kPackedForms, kMixedTokens, kLayers);

/// GPT-2's head, 154 MB of weights; its gradients at sizes that training has.
inline constexpr Layer kVocabulary = {768, 50257};
inline constexpr Case kTimedHead[] = {
    of_layer(Form::NT, 1, kVocabulary),   of_layer(Form::NT, 2, kVocabulary),
    of_layer(Form::NT, 4, kVocabulary),   of_layer(Form::NT, 8, kVocabulary),
    of_layer(Form::NT, 16, kVocabulary),  of_layer(Form::NT, 64, kVocabulary),
    of_layer(Form::NT, 512, kVocabulary), of_layer(Form::NT, 2048, kVocabulary),
    {Form::NN, 64, 768, 50257},           {Form::NN, 512, 768, 50257},
    of_layer(Form::TN, 64, kVocabulary),  of_layer(Form::TN, 512, kVocabulary)};

inline constexpr Case kTimedBf16Head[] = {of_layer(Form::NT, 512, kVocabulary),
                                           {Form::NN, 512, 768, 50257},
                                           of_layer(Form::TN, 512, kVocabulary)};

/// One off a whole number of tiles, panels or chunks in each direction.
inline constexpr Index kOddTokens[] = {64, 65};
inline constexpr Layer kOddLayers[] = {{768, 768}, {769, 768}, {768, 769}};
inline constexpr auto kTimedOdd = crossed(kForms, kOddTokens, kOddLayers);
inline constexpr Case kTimedOddHead[] = {{Form::NT, 8, 50258, 768}, {Form::NT, 65, 50258, 768}};

/// dW is added to what is there, as in training; the other forms store.
constexpr bool accumulates(const Case& c) { return c.form == Form::TN; }

/// `b_value`: bytes of a value of B; 2 if it was packed as bf16.
constexpr Work work(const Case& c, double b_value = 4) {
  const double b = b_value * static_cast<double>(c.k * c.n);
  const double out = floats(c.m * c.n), in = floats(c.m * c.k) + b;
  const double flops = 2.0 * static_cast<double>(c.m) * static_cast<double>(c.n * c.k);
  return accumulates(c) ? updating(flops, in + out, out, out) : streaming(flops, in, out);
}

/// Of the sum of |a·b| of an element: a chain of k roundings errs by √k · 2^-24 or so.
inline constexpr double kTolerance = 1e-6;

inline std::string name(const Case& c) {
  const char* form = c.form == Form::NN ? "NN" : c.form == Form::NT ? "NT" : "TN";
  return plumb::str(form, "/", c.m, "x", c.n, "x", c.k);
}

}  // namespace cases::gemm
