// Learning from rankings directly: losses and gradients by the responses' log-probs against PyTorch
// in double precision (tests/golden/make_methods.py), the whole gradient against central
// differences, and that policies learn what they are shown.
#include "tiny.hpp"

#include <plumb/rlhf/preference.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <fstream>

using namespace plumb;
using namespace test;

namespace {

/// Four prompts of three responses; even tokens are better; a tie and one that nobody judged.
std::vector<RankedPrompt> some_rankings(Index vocab) {
  std::vector<RankedPrompt> prompts;
  for (Index p = 0; p < 4; ++p) {
    RankedPrompt ranked;
    const Tokens prompt = random_tokens(2 + p, vocab, static_cast<std::uint64_t>(200 + p));
    for (Index k = 0; k < 3; ++k) {
      Tokens sequence = prompt;
      const Tokens response =
          random_tokens(2 + (p + 2 * k) % 5, vocab, static_cast<std::uint64_t>(300 + 10 * p + k));
      sequence.insert(sequence.end(), response.begin(), response.end());
      ranked.lengths.push_back(static_cast<Index>(response.size()));
      ranked.begins.push_back(static_cast<Index>(prompt.size()));
      ranked.sequences.push_back(std::move(sequence));
    }
    ranked.rank = p == 0 ? Tokens{0, 1, 1} : p == 1 ? Tokens{1, 0, -1} : Tokens{2, 0, 1};
    prompts.push_back(std::move(ranked));
  }
  return prompts;
}

PreferenceConfig config_of(PreferenceMethod method) {
  PreferenceConfig config;
  config.method = method;
  config.epochs = 2;
  config.batch = 2;
  config.optimizer.lr = 3e-3F;
  if (method == PreferenceMethod::Robust) config.smoothing = 0.125F;
  if (method == PreferenceMethod::SimPo) config.beta = 2.0F;
  return config;
}

const Model<Cpu>* reference_of(const PreferenceConfig& config, const Model<Cpu>& model) {
  return config.needs_reference() ? &model : nullptr;
}

}  // namespace

TEST_CASE("preference: losses of scores, and gradients by tokens, are PyTorch's") {
  std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/methods.json");
  const auto golden = nlohmann::json::parse(file);
  struct Case {
    const char* name;
    PreferenceConfig config;
  };
  using M = PreferenceMethod;
  const Case cases[] = {
      {"dpo", {.method = M::Dpo}},
      {"conservative", {.method = M::Dpo, .smoothing = 0.125F}},
      {"robust", {.method = M::Robust, .smoothing = 0.125F}},
      {"ipo", {.method = M::Ipo, .beta = 0.25F}},
      {"hinge", {.method = M::Hinge}},
      {"simpo", {.method = M::SimPo, .beta = 2.0F, .margin = 0.5F}},
      {"orpo", {.method = M::Orpo, .beta = 0.25F}},
      {"pl", {.method = M::PlackettLuce}},
      {"kto", {.method = M::Kto, .unwanted = 1.5F}},
  };
  std::vector<detail::Compared> prompts;
  std::vector<float> logprobs;
  std::vector<std::int32_t> offsets{0};
  std::size_t response = 0;
  for (const auto& ranks : golden["ranks"]) {
    detail::Compared compared;
    for (const std::int32_t rank : ranks) {
      const auto tokens = golden["new"][response].get<std::vector<float>>();
      logprobs.insert(logprobs.end(), tokens.begin(), tokens.end());
      offsets.push_back(static_cast<std::int32_t>(logprobs.size()));
      compared.rank.push_back(rank);
      compared.length.push_back(static_cast<Index>(tokens.size()));
      double sum = 0;
      for (const float x : golden["ref"][response].get<std::vector<float>>()) sum += x;
      compared.reference.push_back(static_cast<float>(sum));
      ++response;
    }
    prompts.push_back(compared);
  }
  std::vector<const detail::Compared*> all;
  for (const auto& prompt : prompts) all.push_back(&prompt);
  for (const Case& c : cases) {
    CAPTURE(std::string(c.name));
    const auto& expected = golden["preferences"][c.name];
    const auto token = device_vector<Cpu>(logprobs);
    token.set_requires_grad(true);
    std::vector<float> within;
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      const auto n = static_cast<std::size_t>(offsets[i + 1] - offsets[i]);
      within.insert(within.end(), n, c.config.means() ? 1.0F / static_cast<float>(n) : 1.0F);
    }
    PreferenceStats stats;
    const float loss = backpropagate([&] {
      const auto logprob =
          segment_sum(token, device_vector<Cpu>(within), device_vector<Cpu>(offsets));
      return preference_loss(logprob, std::span<const detail::Compared* const>(all), c.config, 0.5F,
                             golden["kto_reference"].get<float>(), stats);
    });
    CHECK(loss == doctest::Approx(expected["loss"].get<double>()).epsilon(2e-6));
    std::vector<double> gradient;
    for (const auto& list : expected["gradient"])
      for (const double g : list) gradient.push_back(g);
    CHECK(max_error(grad_of(token), gradient) < 1e-6);
  }
}

TEST_CASE("preference: the whole gradient is that of differences, however it is split") {
  const auto prompts = some_rankings(19);
  const auto before = tiny_model(tiny_llama(), 8);
  for (const auto& choice : choices(PreferenceMethod{})) {
    const PreferenceMethod method = choice.second;
    CAPTURE(std::string(choice.first));
    const PreferenceConfig config = config_of(method);
    auto policy = tiny_model(tiny_llama(), 7);
    PreferenceTrainer<Model<Cpu>> trainer(policy, reference_of(config, before), prompts, config);
    const auto flat = policy.parameters().flat();
    PreferenceStats stats;
    flat.zero_grad();
    trainer.gradient(1 << 20, stats);
    const auto whole = grad_of(flat);
    flat.zero_grad();
    trainer.gradient(16, stats);
    const auto parts = grad_of(flat);
    CHECK(max_error(parts, std::vector<double>(whole.begin(), whole.end())) < 2e-5);
    // KTO's reference point is a constant of its gradient, so differences would differ.
    if (method == PreferenceMethod::Kto) continue;
    const auto loss = [&] {
      PreferenceStats none;
      flat.zero_grad();
      return static_cast<double>(trainer.gradient(1 << 20, none));
    };
    CHECK(gradient_error(flat, whole, loss, 0x1p-7F, 25) < 5e-3);
  }
}

TEST_CASE_TEMPLATE("preference: every method learns the rankings it is shown", D, Cpu, CpuBf16) {
  const auto prompts = some_rankings(19);
  const auto before = tiny_model<D>(tiny_llama(), 8, ScalarHead::None, 0.05F);
  for (const auto& choice : choices(PreferenceMethod{})) {
    const PreferenceMethod method = choice.second;
    CAPTURE(std::string(choice.first));
    PreferenceConfig config = config_of(method);
    config.epochs = 40;
    auto policy = tiny_model<D>(tiny_llama(), 8, ScalarHead::None, 0.05F);
    PreferenceTrainer<Model<D>> trainer(policy, config.needs_reference() ? &before : nullptr,
                                        prompts, config);
    CHECK(trainer.items() == 4);
    Index updates = 0;
    const PreferenceStats last = trainer.train([&](Index, Index total, float) {
      CHECK(total == 80);
      ++updates;
    });
    CHECK(updates == 80);
    CHECK(last.ranking.correct == last.ranking.pairs);
  }
}

TEST_CASE("preference: at the policy it begins with, every score is exactly zero") {
  const auto prompts = some_rankings(19);
  auto policy = tiny_model(tiny_llama(), 7);
  const auto before = tiny_model(tiny_llama(), 7);
  PreferenceTrainer<Model<Cpu>> trainer(policy, &before, prompts, {});
  PreferenceStats stats;
  const float loss = trainer.gradient(1 << 20, stats);
  CHECK(loss == doctest::Approx(std::log(2.0)));
  CHECK(stats.wanted == 0);
  CHECK(stats.unwanted == 0);
}

TEST_CASE("preference: what makes no sense is refused, by number and reason") {
  auto policy = tiny_model(tiny_llama(), 7);
  const auto before = tiny_model(tiny_llama(), 7);
  const auto error = [&](auto change, const Model<Cpu>* reference) {
    auto prompts = some_rankings(19);
    PreferenceConfig config;
    change(config, prompts);
    return message_of<DataError>(
        [&] { PreferenceTrainer<Model<Cpu>>(policy, reference, prompts, config); });
  };
  const auto nothing = [](auto&, auto&) {};
  CHECK(contains(error(nothing, nullptr), "needs a reference"));
  CHECK(contains(error([](auto& c, auto&) { c.method = PreferenceMethod::SimPo; }, &before),
                 "has no reference"));
  CHECK(contains(error([](auto& c, auto&) { c.beta = 0; }, &before), "beta"));
  CHECK(contains(error(
                     [](auto& c, auto&) {
                       c.method = PreferenceMethod::Ipo;
                       c.smoothing = 0.1F;
                     },
                     &before),
                 "smoothing is for"));
  CHECK(contains(error([](auto&, auto& p) { p[2].begins.clear(); }, &before),
                 "prompt 2 does not say where"));
  CHECK(contains(error([](auto&, auto& p) { p[1].begins[0] = 0; }, &before),
                 "prompt 1, response 0 begins at token 0"));
  CHECK(contains(error(
                     [](auto&, auto& p) {
                       for (auto& prompt : p) prompt.rank = {0, 0, 0};
                     },
                     &before),
                 "no ranking decides"));
}
