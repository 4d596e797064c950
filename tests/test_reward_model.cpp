// The reward model: its gradient through the whole network, that it learns what can be learned and
// nothing from shuffled labels, its normalisation, and how it is judged.
#include "tiny.hpp"

#include <plumb/cpu/reference_loss.hpp>

#include <doctest/doctest.h>

#include <set>

using namespace plumb;
using namespace test;

namespace {

/// Full and partial rankings, ties, an unjudged response, and one that decides nothing.
std::vector<RankedPrompt> token_rankings(Index vocab) {
  const std::vector<Tokens> ranks = {{0, 1},     {2, 0, 1, 3}, {0, 1, 1, 1},
                                     {1, -1, 0}, {0, 0},       {1, 0, 0, 2, 1}};
  std::vector<RankedPrompt> prompts;
  for (const Tokens& rank : ranks) {
    RankedPrompt p;
    for (std::size_t k = 0; k < rank.size(); ++k) {
      const auto n = static_cast<Index>(1 + (prompts.size() * 7 + k * 11) % 40);
      p.sequences.push_back(random_tokens(n, vocab, prompts.size() * 10 + k));
      p.lengths.push_back(n);
    }
    p.rank = rank;
    prompts.push_back(std::move(p));
  }
  return prompts;
}

std::vector<const RankedPrompt*> pointers(const std::vector<RankedPrompt>& prompts) {
  std::vector<const RankedPrompt*> all;
  for (const RankedPrompt& p : prompts) all.push_back(&p);
  return all;
}

/// The reward objective in double from scores on.
double objective(const Model<Cpu>& model, const std::vector<RankedPrompt>& prompts,
                 const RankingLoss& loss, float share) {
  std::vector<double> scores;
  Tokens rank, offsets = {0};
  const std::vector<float> level = levels(pointers(prompts), loss);
  for (const RankedPrompt& p : prompts) {
    for (const float s : reward_scores(model, p.sequences)) scores.push_back(double{s});
    rank.insert(rank.end(), p.rank.begin(), p.rank.end());
    offsets.push_back(static_cast<std::int32_t>(rank.size()));
  }
  const std::vector<float> weight(prompts.size(), share);
  return reference::ranking_loss(scores.data(), rank.data(), level.empty() ? nullptr : level.data(),
                                 offsets.data(), weight.data(), static_cast<Index>(prompts.size()),
                                 loss);
}

/// Prompts whose better response is the one with more tokens that are 3 or 5; length says
/// little.
std::vector<RankedPrompt> separable(Index count, std::uint64_t seed) {
  std::vector<RankedPrompt> prompts;
  for (Index i = 0; i < count; ++i) {
    RankedPrompt p;
    std::vector<Index> good;
    for (std::uint64_t k = 0; k < 4; ++k) {
      const auto n = static_cast<Index>(
          8 + Rng(seed, Stage::Test, static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(k))
                  .below(9));
      p.sequences.push_back(
          random_tokens(n, 8, seed * 100000 + static_cast<std::uint64_t>(i) * 4 + k));
      p.lengths.push_back(n);
      const Tokens& s = p.sequences.back();
      good.push_back(std::count(s.begin(), s.end(), 3) + std::count(s.begin(), s.end(), 5));
    }
    const std::set<Index, std::greater<>> order(good.begin(), good.end());
    for (const Index g : good)
      p.rank.push_back(static_cast<std::int32_t>(std::distance(order.begin(), order.find(g))));
    prompts.push_back(std::move(p));
  }
  return prompts;
}

TransformerConfig scorer() {
  return {.family = Family::Llama,
          .vocab = 8,
          .context = 20,
          .channels = 16,
          .layers = 1,
          .heads = 2,
          .kv_heads = 2,
          .hidden = 32};
}

}  // namespace

TEST_CASE("gradient of the reward objective through the model, both losses and families") {
  for (const auto& config : {tiny_llama(), tiny_gpt2()})
    for (const auto kind : {RankingLossKind::BradleyTerry, RankingLossKind::PlackettLuce}) {
      const RankingLoss loss{.kind = kind, .margin = 0.4F, .center = 0.05F};
      const auto model = tiny_model(config, 7, ScalarHead::Reward);
      const auto prompts = token_rankings(config.vocab);
      const float share = 1.0F / 6;
      RankingStats stats;
      const float value = reward_gradient(model, pointers(prompts), loss, share, stats);
      CHECK(value == doctest::Approx(objective(model, prompts, loss, share)).epsilon(1e-5));
      Index pairs = 0;
      for (const RankedPrompt& p : prompts) pairs += decided_pairs(p);
      CHECK(stats.pairs == static_cast<double>(pairs));
      for (const auto& entry : model.parameters().entries()) {
        CAPTURE(entry.name);
        const double error = gradient_error(
            entry.tensor, grad_of(entry.tensor),
            [&] { return objective(model, prompts, loss, share); }, 1e-2F, sanitized() ? 1 : 4,
            1e-2);
        CHECK(error < 5e-3);
      }
    }
}

TEST_CASE("margins by the data: their gradient, whole and in parts; and where there are none") {
  auto prompts = token_rankings(19);
  for (std::size_t i = 0; i < prompts.size(); ++i)
    if (i != 2) prompts[i].level = random_vector(prompts[i].rank.size(), 40 + i, 2.0F);
  const RankingLoss loss{.margin = 0.2F, .margin_by = MarginBy::Data};
  const auto model = tiny_model(tiny_llama(), 7, ScalarHead::Reward);
  RankingStats stats;
  const float value = reward_gradient(model, pointers(prompts), loss, 0.25F, stats);
  CHECK(value == doctest::Approx(objective(model, prompts, loss, 0.25F)).epsilon(1e-5));
  CHECK(std::abs(double{value} - objective(model, prompts, {.margin = 0.2F}, 0.25F)) > 1e-2);
  for (const auto& entry : model.parameters().entries())
    CHECK(gradient_error(
              entry.tensor, grad_of(entry.tensor),
              [&] { return objective(model, prompts, loss, 0.25F); }, 1e-2F, 1, 1e-2) < 5e-3);
  const RankedPrompt* const one = &prompts[1];
  const float whole = reward_gradient(model, std::span(&one, 1), loss, 0.5F, stats);
  CHECK(reward_gradient_in_parts(model, *one, loss, 0.5F, 30, stats) == whole);

  auto fitted = tiny_model(tiny_llama(), 7, ScalarHead::Reward);
  RewardConfig config;
  config.loss = loss;
  config.loss.kind = RankingLossKind::PlackettLuce;
  const auto refused = [&] {
    return message_of<DataError>([&] { reward_train(fitted, prompts, config); });
  };
  CHECK(contains(refused(), "Plackett-Luce (loss pl) has none"));
  config.loss.kind = RankingLossKind::BradleyTerry;
  prompts[0].level.pop_back();
  CHECK(contains(message_of([&] { reward_train(fitted, prompts, config); }),
                 "ranking 0 has 1 levels for 2 responses"));
  for (RankedPrompt& p : prompts) p.level.clear();
  CHECK(contains(refused(), "no ranking says a margin. HINT"));
}

TEST_CASE("weighed by comparison, all pairs or stages of all rankings count alike") {
  // Each comparison by itself, in double: n of them in a ranking, and a share of each.
  const auto alone = [](const Model<Cpu>& model, const std::vector<RankedPrompt>& prompts,
                        RankingLossKind kind, double& count) {
    double sum = 0;
    for (const RankedPrompt& p : prompts) {
      const auto s = reward_scores(model, p.sequences);
      const auto minus_log_sigmoid = [](double x) { return std::log1p(std::exp(-x)); };
      const auto last = *std::max_element(p.rank.begin(), p.rank.end());
      for (std::size_t i = 0; i < s.size(); ++i) {
        if (p.rank[i] < 0) continue;
        double total = 0;
        for (std::size_t j = 0; j < s.size(); ++j) {
          if (p.rank[j] < 0) continue;
          const double lead = double{s[i]} - double{s[j]};
          if (p.rank[j] >= p.rank[i]) total += std::exp(-lead);
          if (kind == RankingLossKind::PlackettLuce || i == j || p.rank[i] > p.rank[j]) continue;
          const double share = p.rank[i] == p.rank[j] ? 0.5 : 1.0;  // a tie is seen twice
          sum += share * minus_log_sigmoid(lead);
          count += share;
        }
        if (kind == RankingLossKind::BradleyTerry || p.rank[i] == last) continue;
        sum += std::log(total);
        count += 1;
      }
    }
    return sum;
  };
  for (const auto kind : {RankingLossKind::BradleyTerry, RankingLossKind::PlackettLuce}) {
    const RankingLoss loss{.kind = kind, .weight = RankingWeight::Comparison};
    const auto model = tiny_model(tiny_llama(), 7, ScalarHead::Reward);
    const auto prompts = token_rankings(19);
    double count = 0, again = 0;
    const double sum = alone(model, prompts, kind, count);
    Index counted = 0;
    for (const RankedPrompt& p : prompts) counted += comparisons(p.rank, kind);
    CHECK(static_cast<double>(counted) == count);
    RankingStats stats;
    const auto share = static_cast<float>(1 / count);
    CHECK(reward_gradient(model, pointers(prompts), loss, share, stats) ==
          doctest::Approx(sum / count).epsilon(1e-5));
    const auto whole = grad_of(model.parameters().flat());
    for (const auto& entry : model.parameters().entries())
      CHECK(gradient_error(
                entry.tensor, grad_of(entry.tensor),
                [&] { return alone(model, prompts, kind, again) / count; }, 1e-2F, 1, 1e-2) < 5e-3);
    // Of a prompt in parts, too.
    model.parameters().flat().zero_grad();
    for (const RankedPrompt& p : prompts)
      reward_gradient_in_parts(model, p, loss, share, 30, stats);
    const auto parts = grad_of(model.parameters().flat());
    float most = 0, worst = 0;
    for (std::size_t i = 0; i < whole.size(); ++i) {
      most = std::max(most, std::abs(whole[i]));
      worst = std::max(worst, std::abs(whole[i] - parts[i]));
    }
    CHECK(worst <= 1e-5F * most);
  }
}

TEST_CASE("weighed by comparison, an epoch's minibatches together are the mean over the data") {
  auto prompts = token_rankings(19);
  prompts.erase(prompts.begin() + 4);  // the one that decides nothing
  prompts.push_back(prompts[1]);
  double sum = 0, count = 0, mean = 0;
  for (const RankedPrompt& p : prompts) count += static_cast<double>(comparisons(p.rank, {}));
  RewardConfig config;
  config.loss = {.weight = RankingWeight::Comparison};
  config.epochs = 1;
  config.batch = 2;
  config.optimizer.lr = 0;
  config.optimizer.weight_decay = 0;
  auto model = tiny_model(tiny_llama(), 7, ScalarHead::Reward);
  for (const RankedPrompt& p : prompts)
    sum += objective(model, {p}, {}, static_cast<float>(comparisons(p.rank, {})));
  for (const Index micro : {0, 20}) {  // 20 tokens: every prompt is read in parts
    config.micro_tokens = micro;
    mean = 0;
    reward_train(model, prompts, config,
                 [&](Index, Index total, float loss) { mean += double{loss} / double(total); });
    CHECK(mean == doctest::Approx(sum / count).epsilon(1e-5));
  }
}

TEST_CASE("prompts apart or together give the same gradient") {
  const auto prompts = token_rankings(19);
  const auto members = pointers(prompts);
  std::vector<float> whole;
  for (const std::size_t part : {6U, 2U, 1U}) {
    const auto model = tiny_model(tiny_llama(), 7, ScalarHead::Reward);
    RankingStats stats;
    for (std::size_t i = 0; i < 6; i += part)
      reward_gradient(model, std::span(members).subspan(i, part), {.center = 0.01F}, 1.0F / 6,
                      stats);
    const auto gradient = grad_of(model.parameters().flat());
    if (whole.empty()) whole = gradient;
    float most = 0, worst = 0;
    for (std::size_t i = 0; i < whole.size(); ++i) {
      most = std::max(most, std::abs(whole[i]));
      worst = std::max(worst, std::abs(whole[i] - gradient[i]));
    }
    CHECK(worst <= 1e-6F * most);
  }
}

TEST_CASE("a prompt's responses in parts give the same loss and gradient") {
  for (const auto& config : {tiny_llama(), tiny_gpt2()})
    for (const auto kind : {RankingLossKind::BradleyTerry, RankingLossKind::PlackettLuce}) {
      const auto prompts = token_rankings(config.vocab);
      const RankingLoss loss{.kind = kind, .center = 0.01F};
      const auto model = tiny_model(config, 7, ScalarHead::Reward);
      for (const RankedPrompt& prompt : prompts) {
        if (decided_pairs(prompt) == 0) continue;
        const RankedPrompt* const one = &prompt;
        RankingStats whole_stats, parts_stats;
        model.parameters().flat().zero_grad();
        const float whole = reward_gradient(model, std::span(&one, 1), loss, 0.5F, whole_stats);
        const auto expected = grad_of(model.parameters().flat());
        for (const Index tokens : {1, 30, 1000}) {
          model.parameters().flat().zero_grad();
          parts_stats = {};
          CHECK(reward_gradient_in_parts(model, prompt, loss, 0.5F, tokens, parts_stats) == whole);
          CHECK(parts_stats.pairs == whole_stats.pairs);
          const auto gradient = grad_of(model.parameters().flat());
          float most = 0, worst = 0;
          for (std::size_t i = 0; i < expected.size(); ++i) {
            most = std::max(most, std::abs(expected[i]));
            worst = std::max(worst, std::abs(expected[i] - gradient[i]));
          }
          CHECK(worst <= 2e-6F * most);
        }
      }
    }
}

TEST_CASE("training is the same, to rounding, whatever a pass may read") {
  const auto prompts = token_rankings(tiny_llama().vocab);
  RewardConfig config;
  config.epochs = 3;
  std::vector<float> whole;
  for (const Index tokens : {0, 1, 20}) {
    config.micro_tokens = tokens;
    auto model = tiny_model(tiny_llama(), 7, ScalarHead::Reward);
    std::vector<float> losses;
    reward_train(model, prompts, config, [&](Index, Index, float loss) { losses.push_back(loss); });
    if (whole.empty()) whole = losses;
    REQUIRE(losses.size() == whole.size());
    for (std::size_t i = 0; i < losses.size(); ++i)
      CHECK(losses[i] == doctest::Approx(whole[i]).epsilon(1e-4));
  }
}

TEST_CASE("all pairs of a prompt are one batch element: its loss is their mean") {
  auto model = tiny_model(tiny_llama(), 7, ScalarHead::Reward);
  const auto prompts = token_rankings(19);
  const std::vector<RankedPrompt> one = {prompts[1]};  // ranks 2 0 1 3
  const auto s = reward_scores(model, one[0].sequences);
  const std::size_t order[] = {1, 2, 0, 3};
  double mean = 0;
  for (int a = 0; a < 4; ++a)
    for (int b = a + 1; b < 4; ++b)
      mean += std::log1p(std::exp(-(double{s[order[a]]} - s[order[b]]))) / 6;
  RewardConfig config;
  config.epochs = 1;
  config.loss.center = 0;
  config.optimizer.lr = 0;
  std::vector<float> losses;
  reward_train(model, one, config, [&](Index, Index total, float loss) {
    CHECK(total == 1);
    losses.push_back(loss);
  });
  REQUIRE(losses.size() == 1);
  CHECK(losses[0] == doctest::Approx(mean).epsilon(1e-5));
  // Prompts that decide nothing are left out: five of six remain, in batches of 2 (and one of 1).
  config.batch = 2;
  config.epochs = 3;
  Index updates = 0;
  reward_train(model, prompts, config, [&](Index, Index total, float) {
    CHECK(total == 9);
    ++updates;
  });
  CHECK(updates == 9);
}

TEST_CASE("a separable ranking is learned; shuffled labels are not") {
  const Index count = sanitized() ? 60 : 300;
  const auto train = separable(count, 1), heldout = separable(150, 2);
  RewardConfig config;
  config.epochs = 3;
  config.optimizer.lr = 1e-2F;
  for (const auto kind : {RankingLossKind::BradleyTerry, RankingLossKind::PlackettLuce}) {
    config.loss.kind = kind;
    Model<Cpu> model(scorer(), 3, ScalarHead::Reward);
    reward_train(model, train, config);
    const auto learned = reward_evaluate(model, heldout);
    Model<Cpu> control(scorer(), 3, ScalarHead::Reward);
    reward_train(control, shuffle_labels(train, 5), config);
    const auto chance = reward_evaluate(control, heldout);
    MESSAGE("accuracy ", learned.accuracy(), ", shuffled ", chance.accuracy(), ", length ",
            learned.length_accuracy(), ", ece ", learned.ece);
    CHECK(learned.pairs > 600);
    if (!sanitized()) CHECK(learned.accuracy() > 0.95);
    CHECK(learned.accuracy() > 0.8);
    CHECK(std::abs(chance.accuracy() - 0.5) < 0.15);
    CHECK(learned.mean_margin > 0);
    CHECK(learned.length_accuracy() < 0.7);
  }
}

TEST_CASE("scores do not depend on the batch around a sequence") {
  const auto model = tiny_model(tiny_gpt2(), 7, ScalarHead::Reward);
  std::vector<Tokens> sequences;
  for (Index n = 1; n <= 60; n += 7) sequences.push_back(random_tokens(n, 23, 5));
  const auto together = reward_scores(model, sequences);
  for (std::size_t i = 0; i < sequences.size(); ++i)
    CHECK(reward_scores(model, {sequences[i]})[0] == together[i]);
  CHECK(reward_scores(model, {}).empty());
}

TEST_CASE("normalisation: mean 0, standard deviation 1, order kept") {
  auto model = tiny_model(tiny_llama(), 7, ScalarHead::Reward);
  std::vector<Tokens> sequences;
  for (std::uint64_t i = 0; i < 50; ++i) sequences.push_back(random_tokens(12, 19, i));
  const auto before = reward_scores(model, sequences);
  normalise_rewards(model, sequences);
  const auto after = reward_scores(model, sequences);
  double mean = 0, square = 0;
  for (const float s : after) {
    mean += double{s} / 50;
    square += double{s} * double{s} / 50;
  }
  CHECK(std::abs(mean) < 1e-5);
  CHECK(std::sqrt(square - mean * mean) == doctest::Approx(1).epsilon(1e-5));
  for (std::size_t i = 0; i < 50; ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (std::abs(before[i] - before[j]) > 1e-4F)
        CHECK((before[i] < before[j]) == (after[i] < after[j]));
  CHECK(contains(message_of<NumericError>([&] {
                   normalise_rewards(model, {sequences[0], sequences[0], sequences[0]});
                 }),
                 "tells no response from another"));
  CHECK_THROWS_AS(normalise_rewards(model, {sequences[0]}), DataError);
}

TEST_CASE("evaluation by hand: ties, unjudged responses, the length baseline, calibration") {
  const auto prompt = [](const Tokens& rank, const std::vector<Index>& lengths) {
    RankedPrompt p;
    p.rank = rank;
    p.lengths = lengths;
    return p;
  };
  // Right and longer; wrong and shorter; equal scores and lengths; a tie and an unjudged one.
  const std::vector<RankedPrompt> prompts = {prompt({0, 1}, {9, 4}), prompt({1, 0}, {9, 4}),
                                             prompt({0, 1}, {5, 5}), prompt({0, 0, -1}, {1, 2, 3})};
  const std::vector<float> scores = {2, 1, 3, 1, 0.5F, 0.5F, 1, 2, 3};
  const auto e = evaluate_scores(prompts, scores);
  CHECK(e.pairs == 3);
  CHECK(e.correct == 1.5);
  CHECK(e.accuracy() == 0.5);
  CHECK(e.length_correct == 1.5);
  CHECK(e.mean_margin == doctest::Approx((1.0 - 2.0 + 0.0) / 3));
  // Confidences: σ(1) = .731 right, σ(2) = .881 wrong, ½ half right. Each in a bin of its own.
  const double s1 = 1 / (1 + std::exp(-1.0)), s2 = 1 / (1 + std::exp(-2.0));
  CHECK(e.ece == doctest::Approx(((1 - s1) + s2 + 0.0) / 3));

  // Ten pairs at one confidence, of which its share are right: calibrated.
  std::vector<RankedPrompt> many(4, prompt({0, 1}, {1, 2}));
  const auto margin = static_cast<float>(std::log(3.0));  // σ = ¾
  const auto calibrated = evaluate_scores(many, {margin, 0, margin, 0, margin, 0, 0, margin});
  CHECK(calibrated.ece == doctest::Approx(0).epsilon(1e-6));
  CHECK(calibrated.accuracy() == 0.75);
  CHECK(calibrated.length_accuracy() == 0.0);
  CHECK(std::isnan(evaluate_scores({}, {}).accuracy()));  // a share of nothing
  CHECK(std::isnan(evaluate_scores({}, {}).nll));
  // A ranking of four decides six pairs.
  CHECK(evaluate_scores({prompt({3, 1, 0, 2}, {1, 1, 1, 1})}, {1, 3, 4, 2}).correct == 6);
}

TEST_CASE("evaluation: counts must fit, scores that are no numbers are refused and never right") {
  RankedPrompt p;
  p.rank = {0, 1, 2};
  p.lengths = {1, 1, 1};
  CHECK_THROWS_AS(evaluate_scores({p}, {1, 2}), ShapeError);
  CHECK_THROWS_AS(evaluate_scores({p}, {1, 2, 3, 4}), ShapeError);
  const auto e = evaluate_scores({p, p}, {3, NAN, 1, 5, 4, HUGE_VALF});
  CHECK(e.pairs == 6);
  CHECK(e.refused == 4);
  CHECK(e.correct == 2);
  CHECK(e.prompt_pairs == std::vector<double>{3, 3});
  CHECK(e.prompt_correct == std::vector<double>{1, 1});
  CHECK(e.mean_margin == doctest::Approx(1.5));
  const double w2 = 1 / (1 + std::exp(2.0)), w1 = 1 / (1 + std::exp(1.0));
  CHECK(e.nll == doctest::Approx((-std::log(1 - w2) - std::log(1 - w1)) / 2));
  CHECK(e.brier == doctest::Approx((w2 * w2 + w1 * w1) / 2));
  // Two halves are the whole.
  const auto both =
      merged(evaluate_scores({p}, {3, NAN, 1}), evaluate_scores({p}, {5, 4, HUGE_VALF}));
  CHECK(both.pairs == e.pairs);
  CHECK(both.refused == e.refused);
  CHECK(both.nll == doctest::Approx(e.nll));
  CHECK(both.prompt_correct == e.prompt_correct);
}

TEST_CASE("decided pairs, and labels shuffled among the judged") {
  RankedPrompt p;
  p.rank = {0, 2, 1, 1, -1};
  CHECK(decided_pairs(p) == 5);
  std::vector<RankedPrompt> prompts(200, p);
  const auto shuffled = shuffle_labels(prompts, 9);
  Index first_best = 0;
  for (const RankedPrompt& s : shuffled) {
    CHECK(s.rank[4] == -1);
    Tokens sorted(s.rank.begin(), s.rank.end() - 1);
    std::sort(sorted.begin(), sorted.end());
    CHECK(sorted == Tokens{0, 1, 1, 2});
    first_best += s.rank[0] == 0 ? 1 : 0;
  }
  CHECK(first_best > 25);  // 50 expected, standard deviation 6
  CHECK(first_best < 75);
  CHECK(shuffle_labels(prompts, 9)[7].rank == shuffled[7].rank);
  // A level stays with its rank.
  for (RankedPrompt& q : prompts) q.level = {9, 1, 2, 2, 5};
  const auto leveled = shuffle_labels(prompts, 9);
  for (std::size_t i = 0; i < 200; ++i) {
    CHECK(leveled[i].rank == shuffled[i].rank);
    CHECK(leveled[i].level[4] == 5);  // not judged
    for (std::size_t k = 0; k < 4; ++k)
      CHECK(leveled[i].level[k] == std::array{9, 2, 1}.at(std::size_t(leveled[i].rank[k])));
  }
}

TEST_CASE("rankings that cannot be learned from are refused with the reason") {
  auto model = tiny_model(tiny_llama(), 7, ScalarHead::Reward);
  auto headless = tiny_model(tiny_llama());
  const auto prompts = token_rankings(19);
  const auto error = [&](const RankedPrompt& p) {
    return message_of<DataError>([&] { reward_train(model, {prompts[0], p}, {}); });
  };
  CHECK(contains(error({{{1}, {19}}, {0, 1}, {1, 1}}), "prompt 1 has token 19"));
  CHECK(contains(error({{{1}, random_tokens(81, 19, 1)}, {0, 1}, {1, 81}}), "81 tokens"));
  CHECK(contains(message_of<DataError>([&] { reward_train(model, {prompts[4]}, {}); }),
                 "no ranking decides"));
  CHECK(contains(message_of<DataError>([&] {
                   reward_scores(model, {{1}, {20}});
                 }),
                 "sequence 1 has token 20"));
  CHECK(contains(message_of([&] { reward_scores(headless, {{1}}); }), "no scalar head"));
  model.parameters()["blocks.0.down"].data()[0] = NAN;
  CHECK(contains(message_of<NumericError>([&] { reward_train(model, prompts, {}); }),
                 "[reward] update 0: [linear] element"));
}
