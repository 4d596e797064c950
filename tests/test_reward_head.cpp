// Linear reward heads on a frozen trunk: features against the forward pass and a loop in double,
// fits against SciPy, the choice of a layer, and files of heads and features, whole and damaged.
#include "temporary.hpp"
#include "tiny.hpp"

#include <plumb/models/feature_cache.hpp>
#include <plumb/models/reward_file.hpp>
#include <plumb/rlhf/ppo.hpp>

#include <doctest/doctest.h>

#include <stdexcept>

using namespace plumb;
using namespace test;

namespace {

/// Sequences of several lengths with a response of 0, 1 or more tokens each.
std::vector<Answered> some_answers(Index vocab) {
  std::vector<Answered> all;
  for (const auto& [length, response] :
       {std::pair<Index, Index>{7, 3}, {33, 20}, {1, 0}, {80, 79}, {2, 1}, {5, 0}, {40, 1}})
    all.push_back({random_tokens(length, vocab, static_cast<std::uint64_t>(100 + length)),
                   length - response});
  return all;
}

/// The model's first blocks as a model of their own.
Model<Cpu> first_blocks(const Model<Cpu>& model, Index layers) {
  TransformerConfig config = model.config();
  config.layers = layers;
  return Model<Cpu>::unset(config, ScalarHead::None, [](const Parameters<Cpu>&) {});
}

/// Rankings and features of which one layer knows the order, and the others only noise.
struct HeadCase {
  std::vector<RankedPrompt> prompts;
  ResponseFeatures features{{1, 2, 4}, 6, {}, {}};
  std::vector<std::size_t> all;
  std::vector<int> fold;

  explicit HeadCase(std::size_t count, std::uint64_t seed = 1) {
    for (std::size_t p = 0; p < count; ++p) {
      RankedPrompt prompt;
      std::vector<float> quality;
      for (std::size_t k = 0; k < 2 + p % 3; ++k) {
        const auto x = random_vector(36, seed * 100000 + p * 10 + k);
        features.values.insert(features.values.end(), x.begin(), x.end());
        quality.push_back(x[12] - 2 * x[19]);  // the second layer: a last, and a mean
        features.lengths.push_back(static_cast<Index>(1 + (p * 7 + k * 11) % 50));
        prompt.sequences.push_back({1});
        prompt.lengths.push_back(features.lengths.back());
      }
      for (const float q : quality)
        prompt.rank.push_back(static_cast<std::int32_t>(
            std::count_if(quality.begin(), quality.end(), [&](float x) { return x > q; })));
      prompts.push_back(std::move(prompt));
      all.push_back(p);
      fold.push_back(static_cast<int>(p % 5));
    }
  }
  FittedHead choose(const HeadConfig& config = {},
                    RankingLossKind kind = RankingLossKind::BradleyTerry) const {
    return choose_head(prompts, features, all, fold, config, {.kind = kind});
  }
};

RewardHeadFile a_head(const Temporary& folder) {
  write_plainly(folder / "trunk.bin", "the trunk");
  return {{{{3, Pooling::Mean, {0.5F, -2.0F, 1e-20F}, 0.25F, -7.0F}}, 0},
          folder / "trunk.bin",
          "0123abcd"};
}

}  // namespace

TEST_CASE("features are what the forward pass computes on its way, bit for bit") {
  for (const auto& config : {tiny_llama(), tiny_gpt2()}) {
    const auto model = tiny_model(config);
    PackedBatch packed;
    for (const Answered& a : some_answers(config.vocab)) packed.add(a.tokens);
    const auto batch = Batch<Cpu>::from(packed);
    const std::vector<Index> layers{0, 1, 2};
    const auto features = model.features(batch, layers);
    REQUIRE(features.size() == 3);
    CHECK(same_bits(features[0].to_vector(), [&] {
      auto x = embedding(model.parameters()["embedding"], batch.tokens);
      if (config.family.positions == Positions::Learned)
        x = add(x, embedding(model.parameters()["position_embedding"], batch.positions));
      return x.to_vector();
    }()));
    for (std::size_t i = 0; i < 3; ++i)
      CHECK(same_bits(model.features(batch, std::span(layers).subspan(i, 1))[0].to_vector(),
                      features[i].to_vector()));
    // A model that ends after the layer gives them to its final norm.
    for (const Index layers_left : {1, 2}) {
      auto shorter = first_blocks(model, layers_left);
      for (const auto& entry : shorter.parameters().entries())
        copy(Cpu{}, entry.tensor.data(), model.parameters()[entry.name].data(),
             entry.tensor.bytes());
      const auto& p = model.parameters();
      const auto& x = features[static_cast<std::size_t>(layers_left)];
      const auto normed =
          config.family.norm == Norm::Layer
              ? layer_norm(x, p["final_norm"], p["final_norm_bias"], config.norm_eps)
              : rms_norm(x, p["final_norm"], config.norm_eps);
      CHECK(same_bits(shorter.hidden(batch).to_vector(), normed.to_vector()));
    }
    CHECK(model.features(batch, {}).empty());
    const std::vector<Index> beyond{3}, descending{1, 0};
    CHECK(contains(message_of([&] { model.features(batch, beyond); }), "after 3 of 2 blocks"));
    CHECK(contains(message_of([&] { model.features(batch, descending); }), "ascending"));
  }
}

TEST_CASE("pooled features: last token and mean, whatever the batch and the threads") {
  const auto model = tiny_model(tiny_llama());
  const auto answers = some_answers(19);
  const auto together = response_features(model, answers, {0, 2});
  CHECK(together.rows() == 7);
  CHECK(together.width() == 2 * 2 * 24);
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const auto alone = response_features(model, {answers[i]}, {0, 2});
    CHECK(same_bits(alone.values, std::vector<float>(together.at(i, 0), together.at(i, 0) + 96)));
    PackedBatch packed;
    packed.add(answers[i].tokens);
    const std::vector<Index> two{2};
    const auto x = model.features(Batch<Cpu>::from(packed), two)[0].to_vector();
    const auto tokens = static_cast<Index>(answers[i].tokens.size());
    const Index first = std::min(answers[i].begin, tokens - 1);
    for (Index c = 0; c < 24; ++c) {
      double mean = 0;
      for (Index t = first; t < tokens; ++t)
        mean +=
            double{x[static_cast<std::size_t>(t * 24 + c)]} / static_cast<double>(tokens - first);
      CHECK(together.at(i, 1)[c] == x[static_cast<std::size_t>((tokens - 1) * 24 + c)]);
      CHECK(double{together.at(i, 1)[24 + c]} == doctest::Approx(mean).epsilon(1e-6));
    }
    CHECK(together.lengths[i] == tokens - answers[i].begin);
  }
  for (const int threads : {1, 2, 3})
    with_threads(threads, [&] {
      CHECK(same_bits(response_features(model, answers, {0, 2}).values, together.values));
    });
  Index seen = 0;
  response_features(model, answers, {1}, [&](Index done, Index total) {
    CHECK(total == 7);
    seen = done;
  });
  CHECK(seen == 7);
  CHECK(response_features(model, {}, {1}).rows() == 0);
  CHECK(contains(message_of<DataError>([&] {
                   response_features(model, {answers[0], {{19}, 0}}, {1});
                 }),
                 "sequence 1 has token 19"));
  CHECK(contains(message_of([&] { response_features(model, {{{1, 2}, 3}}, {1}); }), "outside"));
  CHECK(contains(message_of([&] { answered({RankedPrompt{{{1}}, {0}, {1}}}); }), "begin"));
}

TEST_CASE("heads are those that SciPy fits, for both losses, every pooling and with the length") {
  const Json golden =
      parse_json(read_file(PLUMB_SOURCE_DIR "/tests/golden/reward_head.json"), "golden");
  ResponseFeatures features{{5}, golden["channels"], golden["lengths"], golden["features"]};
  std::vector<RankedPrompt> prompts;
  std::vector<std::size_t> all;
  for (const Json& rank : golden["ranks"]) {
    all.push_back(prompts.size());
    prompts.push_back({{}, rank.get<Tokens>(), {}});
  }
  REQUIRE(golden["fits"].size() == 24);
  for (const Json& fit : golden["fits"]) {
    CAPTURE(fit["pool"]);
    CAPTURE(fit["loss"]);
    HeadConfig config;
    config.length = fit["length"];
    RankingLossKind kind{};
    REQUIRE(parse_setting(Field{"pool", ""}, config.pool, fit["pool"].get<std::string>()).empty());
    REQUIRE(parse_setting(Field{"loss", ""}, kind, fit["loss"].get<std::string>()).empty());
    const auto head = fit_head(prompts, features, all, 0, config, {.kind = kind}, fit["penalty"]);
    CHECK(head.layer == 5);
    CHECK((head.length != 0) == config.length);
    const auto scores = head_scores(head, features);
    // The weights are floats, and scores of some tens; what they order is their differences.
    for (std::size_t i = 0; i < scores.size(); ++i)
      CHECK(double{scores[i]} ==
            doctest::Approx(fit["scores"][i].get<double>()).epsilon(1e-4).scale(1));
    for (const int threads : {1, 2})
      with_threads(threads, [&] {
        const auto again =
            fit_head(prompts, features, all, 0, config, {.kind = kind}, fit["penalty"]);
        CHECK(same_bits(again.weight, head.weight));
      });
  }
}

TEST_CASE("terms of a head's loss are those of the loss that the whole network is trained by") {
  for (const auto& [kind, by] : {std::pair{RankingLossKind::BradleyTerry, MarginBy::Constant},
                                 {RankingLossKind::BradleyTerry, MarginBy::Data},
                                 {RankingLossKind::PlackettLuce, MarginBy::Constant}})
    for (const Tokens& rank :
         {Tokens{0, 1}, {2, 0, 1, 3}, {0, 1, 1, 1}, {1, -1, 0}, {0, 0}, {1, 0, 0, 2, 1}, {-1, 0}}) {
      const auto s = random_vector(static_cast<Index>(rank.size()), 3, 4.0F);
      const std::vector<double> wide(s.begin(), s.end());
      std::vector<double> gradient(s.size());
      const RankingLoss settings{.kind = kind, .margin = 0.7F, .margin_by = by};
      std::vector<float> level;
      if (by == MarginBy::Data) level = random_vector(static_cast<Index>(rank.size()), 4, 2.0F);
      const double value = detail::ranked_term(settings, rank, level, wide.data(), gradient.data());
      auto scores = Tensor<Cpu>::from(s, {static_cast<Index>(s.size())});
      scores.set_requires_grad(true);
      RankingStats stats;
      Tape tape;
      const auto loss =
          ranking_loss(scores, ids(rank),
                       level.empty() ? Tensor<Cpu>{}
                                     : Tensor<Cpu>::from(level, {static_cast<Index>(level.size())}),
                       ids({0, static_cast<std::int32_t>(rank.size())}),
                       Tensor<Cpu>::from(std::vector<float>{1.0F}, {1}), settings, &stats);
      tape.backward(loss);
      CHECK(value == doctest::Approx(double{loss.item()}).epsilon(1e-6));
      const auto expected = grad_of(scores);
      for (std::size_t i = 0; i < s.size(); ++i)
        CHECK(gradient[i] == doctest::Approx(double{expected[i]}).epsilon(1e-5).scale(1));
    }
}

TEST_CASE("a head weighed by comparison is the maximum of the likelihood of all comparisons") {
  // One feature and ranks that it only leans to, so that the maximum is finite; found by halving.
  ResponseFeatures features{{1}, 1, {}, {}};
  std::vector<RankedPrompt> prompts;
  std::vector<std::size_t> all;
  for (std::size_t p = 0; p < 60; ++p) {
    const std::size_t k = 2 + p % 4;
    const auto x = random_vector(static_cast<Index>(k), 500 + p);
    const auto noise = random_vector(static_cast<Index>(k), 900 + p);
    RankedPrompt prompt;
    for (std::size_t i = 0; i < k; ++i) {
      features.values.insert(features.values.end(), {x[i], 0});
      features.lengths.push_back(1);
      prompt.rank.push_back(0);
      for (std::size_t j = 0; j < k; ++j)
        prompt.rank.back() += x[j] + noise[j] > x[i] + noise[i] ? 1 : 0;
    }
    all.push_back(p);
    prompts.push_back(prompt);
  }
  for (const auto kind : {RankingLossKind::BradleyTerry, RankingLossKind::PlackettLuce}) {
    const double penalty = 1e-9;  // none, but for its own rounding
    const auto slope = [&](double w) {
      double sum = 0;
      std::size_t first = 0;
      for (const RankedPrompt& p : prompts) {
        const std::size_t k = p.rank.size();
        const auto x = [&](std::size_t i) { return double{features.values[2 * (first + i)]}; };
        for (std::size_t i = 0; i < k; ++i) {
          double total = 0, mean = 0;
          for (std::size_t j = 0; j < k; ++j) {
            if (p.rank[j] < p.rank[i]) continue;
            const double e = std::exp(w * x(j));
            total += e;
            mean += e * x(j);
            if (kind == RankingLossKind::BradleyTerry && i != j)
              sum += (x(j) - x(i)) / (1 + std::exp(w * (x(i) - x(j))));
          }
          if (kind == RankingLossKind::PlackettLuce) sum += mean / total - x(i);
        }
        first += k;
      }
      return sum;
    };
    double low = -20, high = 20;
    for (int i = 0; i < 80; ++i) (slope((low + high) / 2) < 0 ? low : high) = (low + high) / 2;
    const HeadConfig config{.layer = 1, .pool = Pooling::Last, .length = false};
    const auto fit = [&](RankingWeight weight) {
      return double{
          fit_head(prompts, features, all, 0, config, {.kind = kind, .weight = weight}, penalty)
              .weight[0]};
    };
    CHECK(fit(RankingWeight::Comparison) == doctest::Approx(low).epsilon(1e-5));
    CHECK(std::abs(fit(RankingWeight::Ranking) - low) > 1e-3);
  }
}

TEST_CASE("the layer that knows the order is chosen, and shuffled labels teach nothing") {
  const HeadCase train(120), held_out(120, 2);
  for (const auto kind : {RankingLossKind::BradleyTerry, RankingLossKind::PlackettLuce}) {
    const FittedHead fitted = train.choose({}, kind);
    CHECK(fitted.head.layer == 2);
    CHECK(fitted.nll < 0.5);
    const auto e = evaluate_scores(held_out.prompts, head_scores(fitted.head, held_out.features));
    MESSAGE("accuracy ", e.accuracy(), ", penalty ", fitted.penalty);
    CHECK(e.accuracy() > 0.9);
    with_threads(1,
                 [&] { CHECK(same_bits(train.choose({}, kind).head.weight, fitted.head.weight)); });
  }
  HeadCase control = train;
  control.prompts = shuffle_labels(control.prompts, 3);
  const FittedHead nothing = control.choose();
  CHECK(nothing.penalty == kHeadPenalties.front());
  const auto e = evaluate_scores(held_out.prompts, head_scores(nothing.head, held_out.features));
  CHECK(std::abs(e.accuracy() - 0.5) < 0.15);
  // One pooling alone sees one of the two features that matter.
  const FittedHead last = train.choose({.pool = Pooling::Last, .length = false});
  CHECK(last.head.weight.size() == 6);
  CHECK(last.head.length == 0);
}

TEST_CASE("what cannot be fitted or scored is refused") {
  HeadCase train(10);
  CHECK(head_layers(30, {}) == std::vector<Index>{10, 15, 20});
  CHECK(head_layers(5, {}) == std::vector<Index>{1, 2, 3});
  CHECK(head_layers(1, {}) == std::vector<Index>{1});
  CHECK(head_layers(5, {.layer = 4}) == std::vector<Index>{4});
  CHECK(contains(message_of<DataError>([] { head_layers(5, {.layer = 6}); }), "at most 5"));
  CHECK(contains(message_of<DataError>([&] { train.choose({.layer = -1}); }), "layer"));
  LinearHead head = train.choose().head;
  head.layer = 3;
  CHECK(contains(message_of([&] { head_scores(head, train.features); }), "other layers"));
  for (RankedPrompt& p : train.prompts) std::fill(p.rank.begin(), p.rank.end(), 0);
  CHECK(contains(message_of<DataError>([&] { train.choose(); }), "no ranking decides"));
  const HeadCase other(10);
  CHECK(contains(message_of<DataError>([&] {
                   choose_head(other.prompts, other.features, other.all, other.fold, {},
                               {.margin_by = MarginBy::Data});
                 }),
                 "no ranking says a margin"));
}

TEST_CASE("a head of mean 0 and deviation 1, and PPO that is trained by it") {
  auto policy = tiny_model(tiny_llama(), 7, ScalarHead::Value);
  const auto reference = policy.clone();
  const std::vector<float> weight = random_vector(48, 3);
  LinearHead head{1, Pooling::Both, weight, 0.1F, 3.0F};
  const auto answers = some_answers(19);
  normalise_head(head, head_scores(head, reference, answers));
  const auto scores = head_scores(head, reference, answers);
  double mean = 0, square = 0;
  for (const float s : scores) {
    mean += double{s} / 7;
    square += double{s} * double{s} / 7;
  }
  CHECK(std::abs(mean) < 1e-5);
  CHECK(square == doctest::Approx(1).epsilon(1e-4));
  PpoConfig config;
  config.iterations = 2;
  config.epochs = 1;
  config.minibatches = 1;
  config.sampling.max_new_tokens = 6;
  PpoTrainer<Cpu> trainer(policy, reference, head_function(head, reference), config);
  for (int i = 0; i < 2; ++i) trainer.step({{1, 2}, {3}, {4, 5, 6}});
  std::vector<float> seen;
  for (const Episode& e : trainer.episodes()) seen.push_back(e.score);
  CHECK(same_bits(seen, head_scores(head, reference, answered(trainer.episodes()))));
}

TEST_CASE("a head's file: read back exactly; refused where it is damaged or another thing") {
  const Temporary folder;
  const RewardHeadFile file = a_head(folder);
  const std::string path = folder / "head.safetensors";
  save_reward_head(path, file);
  CHECK(is_reward_head(path));
  CHECK_FALSE(is_reward_head(folder / "trunk.bin"));
  CHECK_FALSE(is_reward_head(folder / ""));
  const RewardHeadFile read = open_reward_head(path);
  REQUIRE(read.ensemble.heads.size() == 1);
  CHECK(read.ensemble.pessimism == 0);
  const LinearHead& back = read.ensemble.heads[0];
  CHECK(back.layer == 3);
  CHECK(back.pool == Pooling::Mean);
  CHECK(same_bits(back.weight, file.ensemble.heads[0].weight));
  CHECK(back.length == 0.25F);
  CHECK(back.bias == -7.0F);
  CHECK(detail::real_path(read.trunk) == detail::real_path(file.trunk));
  CHECK(read.fingerprint == "0123abcd");

  const std::string bytes = read_file(path);
  const auto complaint = [&](const std::string& from, const std::string& to) {
    std::string changed = bytes;
    if (!from.empty()) changed.replace(changed.find(from), from.size(), to);
    write_plainly(path, changed);
    return message_of<DataError>([&] { open_reward_head(path); });
  };
  CHECK(contains(complaint("0123abcd", "0123abce"), "corrupt"));
  write_plainly(path, bytes.substr(0, bytes.size() - 3));
  CHECK(contains(message_of<DataError>([&] { open_reward_head(path); }), "truncated"));
  const auto written = [&](std::map<std::string, std::string> metadata) {
    const std::vector<float> weight{1, 2};
    const NamedArray arrays[] = {{"weight", {2}, weight}, {"length", {1}, {weight.data(), 1}}};
    write_checkpoint(path, arrays, std::move(metadata));
    return message_of<DataError>([&] { open_reward_head(path); });
  };
  CHECK(contains(written({}), "no 'reward_head'"));
  const auto head = [&](const char* json) { return written({{"reward_head", json}}); };
  CHECK(contains(head(R"({"layer":-1,"pool":"last","length":true})"), "'layer' must be"));
  CHECK(contains(head(R"({"layer":1,"pool":"first","length":true})"), "'pool' must be"));
  CHECK(contains(head(R"({"layer":1,"pool":"last"})"), "does not say 'length'"));
  CHECK(contains(head(R"({"layer":1,"pool":"last","length":true})"), "array 'bias'"));
  RewardHeadFile bad = file;
  bad.ensemble.heads[0].weight[1] = NAN;
  CHECK(contains(message_of<NumericError>([&] { save_reward_head(path, bad); }), "not saved"));
}

TEST_CASE("an ensemble: heads of other draws differ, are one judge, and share a layer") {
  const HeadCase train(80), held_out(60, 2);
  const FittedHead chosen = train.choose();
  std::vector<std::size_t> group(train.all);
  const auto fit = [&](Index heads, std::uint64_t seed) {
    return fit_heads(train.prompts, train.features, train.all, group, 1, {}, {}, chosen.penalty,
                     heads, seed);
  };
  HeadEnsemble e{fit(6, 1), 0};
  for (std::size_t i = 1; i < 6; ++i) CHECK_FALSE(same_bits(e.heads[i].weight, e.heads[0].weight));
  with_threads(1, [&] {
    const auto again = fit(6, 1), other = fit(6, 2);
    for (std::size_t i = 0; i < 6; ++i) {
      CHECK(same_bits(again[i].weight, e.heads[i].weight));
      CHECK_FALSE(same_bits(other[i].weight, e.heads[i].weight));
    }
  });
  const auto by_head = scores_by_head(e, held_out.features);
  const EnsembleScores plain = head_scores_of_ensemble(e, held_out.features);
  CHECK(same_bits(plain.score, plain.mean));
  for (std::size_t r = 0; r < plain.mean.size(); ++r) {
    double mean = 0, square = 0;
    for (const auto& s : by_head) mean += double{s[r]} / 6;
    for (const auto& s : by_head) square += (double{s[r]} - mean) * (double{s[r]} - mean) / 6;
    CHECK(double{plain.mean[r]} == doctest::Approx(mean).epsilon(1e-6));
    CHECK(double{plain.disagreement[r]} == doctest::Approx(std::sqrt(square)).epsilon(1e-5));
    CHECK(plain.disagreement[r] > 0);
  }
  for (const float pessimism : {0.5F, 3.0F}) {
    e.pessimism = pessimism;
    const EnsembleScores s = head_scores_of_ensemble(e, held_out.features);
    CHECK(same_bits(s.mean, plain.mean));
    CHECK(same_bits(s.disagreement, plain.disagreement));
    for (std::size_t r = 0; r < s.score.size(); ++r)
      CHECK(s.score[r] ==
            static_cast<float>(double{s.mean[r]} - double{pessimism} * double{s.disagreement[r]}));
  }
  // Rescaled, score and disagreement are.
  const EnsembleScores before = head_scores_of_ensemble(e, held_out.features);
  HeadEnsemble scaled = e;
  scaled.rescale(2, 1);
  const EnsembleScores after = head_scores_of_ensemble(scaled, held_out.features);
  for (std::size_t r = 0; r < before.score.size(); ++r) {
    CHECK(after.score[r] ==
          doctest::Approx(2 * double{before.score[r]} + 1).epsilon(1e-4).scale(1));
    CHECK(after.disagreement[r] ==
          doctest::Approx(2 * double{before.disagreement[r]}).epsilon(1e-4).scale(1));
  }
  // One head is a head by itself; where all draws are the same, heads do not differ.
  CHECK(same_bits(head_scores_of_ensemble({{chosen.head}, 2}, held_out.features).score,
                  head_scores(chosen.head, held_out.features)));
  std::fill(group.begin(), group.end(), 7);
  const EnsembleScores same = head_scores_of_ensemble({fit(3, 1), 1}, held_out.features);
  for (const float d : same.disagreement) CHECK(d == 0);
  CHECK(contains(message_of([&] { head_scores_of_ensemble({}, held_out.features); }), "without"));
}

TEST_CASE("prompts drawn with replacement: as many groups, each whole, some several times") {
  const std::vector<std::size_t> group{0, 1, 1, 2, 3, 3, 3, 4};
  double repeated = 0;
  std::vector<double> mean(group.size());
  for (Index head = 0; head < 400; ++head) {
    const auto times = bootstrap_times(group, 5, head);
    CHECK(times[1] == times[2]);
    CHECK(times[4] == times[6]);
    CHECK(times[0] + times[1] + times[3] + times[4] + times[7] == 5);
    repeated += times[0] > 1 ? 1 : 0;
    for (std::size_t i = 0; i < group.size(); ++i) mean[i] += times[i] / 400;
  }
  CHECK(repeated > 50);  // 105 expected: 1 − 0.8⁵ − 5·0.2·0.8⁴ of 400
  for (const double m : mean) CHECK(m == doctest::Approx(1).epsilon(0.2));  // deviation 0.045
  CHECK(bootstrap_times({}, 5, 0).empty());
}

TEST_CASE("an ensemble's pairs, told by whether its heads agree") {
  RankedPrompt p;
  p.rank = {0, 1, -1, 2};
  // Pairs 0-1: both heads right; 0-3: they differ, and the mean is right; 1-3: both are wrong.
  const std::vector<std::vector<float>> by_head{{3, 1, 9, 2}, {2, 1, 0, 2.5F}};
  const EnsembleEvaluation e = evaluate_ensemble({p}, by_head, 0);
  CHECK(e.responses == 4);
  CHECK(e.disagreement == doctest::Approx(0.5 + 0 + 4.5 + 0.25));
  CHECK(e.agreed == 2);
  CHECK(e.agreed_correct == 1);
  CHECK(e.disputed == 1);
  CHECK(e.disputed_correct == 1);
  CHECK(evaluate_ensemble({p}, by_head, 4).disputed_correct == 0);  // 2.5 − 4·½ < 2.25 − 4·¼
  CHECK(contains(message_of([&] { evaluate_ensemble({p, p}, by_head, 0); }), "one score"));
}

TEST_CASE("an ensemble's file: read back exactly; an older head's file opens; damage is refused") {
  const Temporary folder;
  RewardHeadFile file = a_head(folder);
  const std::string path = folder / "heads.safetensors";
  // A head's file before there were ensembles, as it was written then.
  const LinearHead first = file.ensemble.heads[0];
  const NamedArray arrays[] = {{"weight", {3}, first.weight},
                               {"length", {1}, {&first.length, 1}},
                               {"bias", {1}, {&first.bias, 1}}};
  write_checkpoint(path, arrays,
                   {{"reward_head", R"({"layer":3,"pool":"mean","length":true})"},
                    {"trunk", "trunk.bin"},
                    {"trunk_fingerprint", "0123abcd"}},
                   Previous::Drop);
  const std::string before = read_file(path);
  CHECK(same_bits(open_reward_head(path).ensemble.heads.at(0).weight, first.weight));
  save_reward_head(path, file);
  CHECK(read_file(path) == before);

  file.ensemble.heads.push_back({3, Pooling::Mean, {1.5F, 0.0F, -3e5F}, -0.0F, 2.0F});
  file.ensemble.heads.push_back({3, Pooling::Mean, {7.0F, 8.0F, 9.0F}, 1.0F, 1.0F});
  file.ensemble.pessimism = 0.3F;
  save_reward_head(path, file);
  CHECK(is_reward_head(path));
  const RewardHeadFile back = open_reward_head(path);
  CHECK(back.ensemble.pessimism == 0.3F);
  REQUIRE(back.ensemble.heads.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    const LinearHead &was = file.ensemble.heads[i], &is = back.ensemble.heads[i];
    CHECK(is.layer == 3);
    CHECK(is.pool == Pooling::Mean);
    CHECK(same_bits(is.weight, was.weight));
    CHECK(same_bits(std::array{is.length, is.bias}, std::array{was.length, was.bias}));
  }
  const auto written = [&](const char* ensemble, Shape weight, Index bias) {
    const std::vector<float> six{1, 2, 3, 4, 5, 6};
    const NamedArray some[] = {{"weight", weight, six},
                               {"length", {2}, {six.data(), 2}},
                               {"bias", {bias}, {six.data(), static_cast<std::size_t>(bias)}}};
    write_checkpoint(path, some,
                     {{"reward_head", R"({"layer":3,"pool":"mean","length":true})"},
                      {"ensemble", ensemble},
                      {"trunk", "trunk.bin"},
                      {"trunk_fingerprint", "0123abcd"}},
                     Previous::Drop);
    return message_of<DataError>([&] { open_reward_head(path); });
  };
  const char* two = R"({"heads":2,"pessimism":0})";
  CHECK(contains(written(two, {6}, 2), "array 'weight'"));
  CHECK(contains(written(two, {3, 2}, 2), "array 'weight'"));
  CHECK(contains(written(two, {2, 3}, 1), "array 'bias'"));
  CHECK(contains(written(R"({"heads":0,"pessimism":0})", {2, 3}, 2), "'heads' must be"));
  CHECK(contains(written(R"({"heads":2,"pessimism":-1})", {2, 3}, 2), "'pessimism' must be"));
  CHECK(contains(written(R"({"heads":2})", {2, 3}, 2), "does not say 'pessimism'"));
  file.ensemble.heads[1].weight.pop_back();
  CHECK(contains(message_of([&] { save_reward_head(path, file); }), "other features"));
}

TEST_CASE("features come from the file where it has them, and are made where it has not") {
  const auto model = tiny_model(tiny_llama());
  const Temporary folder;
  const std::string path = folder / "features";
  auto answers = some_answers(19);
  const std::vector<Answered> some(answers.begin(), answers.begin() + 4);
  const auto exact = response_features(model, answers, {0, 2});
  Index computed = 0;
  std::vector<std::string> said;
  const auto cached = [&](const std::vector<Answered>& sequences, const std::string& model_name,
                          std::vector<Index> layers) {
    computed = 0;
    said.clear();
    return cached_features(
        model, model_name, sequences, std::move(layers), path,
        [&](const std::string& text) { said.push_back(text); },
        [&](Index, Index total) { computed = total; });
  };
  cached(some, "a", {0, 2});
  CHECK(computed == 4);
  CHECK(same_bits(cached(answers, "a", {0, 2}).values, exact.values));
  CHECK(computed == 3);
  std::reverse(answers.begin(), answers.end());
  const auto turned = cached(answers, "a", {0, 2});
  CHECK(computed == 0);
  CHECK(said.empty());
  CHECK(same_bits(turned.values, response_features(model, answers, {0, 2}).values));
  CHECK(turned.lengths == response_features(model, answers, {0, 2}).lengths);
  // Another border, model or layer: nothing of the file is taken.
  answers[0].begin += 1;
  cached(answers, "a", {0, 2});
  CHECK(computed == 1);
  cached(answers, "b", {0, 2});
  CHECK(computed == 7);
  CHECK(said.size() == 1);
  CHECK(contains(said[0], "another model"));
  cached(answers, "b", {1});
  CHECK(computed == 7);
  CHECK(said.size() == 1);
  // What was interrupted has been kept but for the part that was at work.
  std::vector<Answered> many;
  for (std::uint64_t i = 0; i < 300; ++i) many.push_back({random_tokens(3, 19, 1000 + i), 1});
  CHECK_THROWS_AS(cached_features(
                      model, "b", many, {1}, path, [](const std::string&) {},
                      [](Index done, Index) {
                        if (done > 256) throw std::runtime_error("interrupted");
                      }),
                  std::runtime_error);
  CHECK(same_bits(cached(many, "b", {1}).values, response_features(model, many, {1}).values));
  CHECK(computed < 50);
  // A bit that is not what it was.
  std::string bytes = read_file(path);
  bytes[bytes.size() - 5] = static_cast<char>(bytes[bytes.size() - 5] ^ 1);
  write_plainly(path, bytes);
  const auto again = cached(answers, "b", {1});
  CHECK(computed == 7);
  CHECK(contains(said.at(0), "corrupt"));
  CHECK(same_bits(again.values, response_features(model, answers, {1}).values));
  cached(answers, "b", {1});
  CHECK(computed == 0);
}
