// Step 1 of RLHF: sample responses.
//
// Sequences of any length run together: a finished one leaves its cache slot and the next enters. A
// prompt is read once, into a slot of its own, and copied to each of its responses. A token's
// random number is keyed by (seed, step, response, token), and a row's bits do not depend on the
// rows beside it, so neither the number of slots nor what else runs changes any response; and the
// log-prob recorded with a token is bitwise the one that the training forward computes for it.
// Not here: beam search, repetition penalties (they sample from another distribution than is
// trained).
#pragma once

#include <plumb/core/fields.hpp>
#include <plumb/core/replay.hpp>
#include <plumb/math/sampling.hpp>
#include <plumb/nn/budget.hpp>
#include <plumb/ops/linear.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

struct SampleOptions {
  SamplingSettings sampling{};
  Index responses = 1;         ///< per prompt
  Index max_new_tokens = 160;  ///< per response, the stop token included
  Tokens stops{};              ///< a response ends with any of these (kept as its last token)
  std::function<bool(std::span<const std::int32_t>)>
      stop_when{};  ///< or when this says so; optional
  std::uint64_t seed = 1;
  std::uint32_t step = 0;  ///< part of the random key: the round or PPO iteration
  Index slots = 64;        ///< sequences that run together, where memory_limit() allows
  CacheType kv_cache = CacheType::Float;  ///< Bf16: not for responses that a policy is trained on
  std::function<void(Index done, Index total)>
      progress{};  ///< after each finished response; optional
};

template <class F>
void fields(SampleOptions& o, F&& f) {
  f(Field{"responses", "responses per prompt", at_least(1)}, o.responses);
  f(Field{"max-new-tokens", "longest response, its end token included", at_least(1), "tokens"},
    o.max_new_tokens);
  f(Field{"temperature", "softmax temperature; 0 takes the likeliest token", at_least(0)},
    o.sampling.temperature);
  f(Field{"top-k", "sample from the k likeliest tokens; 0: all", at_least(0), "", "Sampling"},
    o.sampling.top_k);
  f(Field{"top-p", "then from the fewest tokens of this mass; 1: all", above_to(0, 1), "",
          "Sampling"},
    o.sampling.top_p);
  f(Field{"min-p", "then tokens at least so likely as a share of the likeliest; 0: all",
          between(0, 1), "", "Sampling"},
    o.sampling.min_p);
  f(Field{"seed", "seed of the random draws"}, o.seed);
  f(Field{"slots", "sequences that run together: speed and memory, not results", at_least(1), "",
          "Sampling"},
    o.slots);
  f(Field{"kv-cache",
          "keys and values of long texts kept as float or bf16, half the memory",
          {},
          "",
          "Sampling"},
    o.kv_cache);
}

/// DataError naming the setting that is out of range, or a temperature that no float can divide by.
inline void check_sampling(const SampleOptions& options, const char* op,
                           Where where = Where::here()) {
  check_fields(options, op, where);
  const float temperature = options.sampling.temperature;
  if (temperature != 0.0F && !std::isfinite(1.0F / temperature))
    fail<DataError>(str("[", op, "] temperature ", static_cast<double>(temperature),
                        " is too small: its inverse is not finite. HINT: 0 takes the likeliest "
                        "token"),
                    where);
}

/// One sampled response.
struct Response {
  Index prompt = 0;             ///< which prompt
  Tokens tokens;                ///< (R), the stop token included
  std::vector<float> logprobs;  ///< (R), nats, of the tempered distribution before any filter
                                ///< unless the settings ask for the filtered one's
  bool finished = false;        ///< ended by a stop, not by length
};

namespace detail {

// The running sequences of one call of sample().
template <Policy P>
class Sampler {
 public:
  Sampler(const P& model, const std::vector<Tokens>& prompts, const SampleOptions& options)
      : model_(model),
        prompts_(prompts),
        options_(options),
        weights_(model.pack()),
        results_(prompts.size() * static_cast<std::size_t>(options.responses)),
        capacity_(std::min(longest_prompt() + options.max_new_tokens, model.context())),
        slots_(cache_slots(model,
                           std::min<Index>(options.slots, static_cast<Index>(results_.size())),
                           capacity_, options.kv_cache)),
        cache_(make_cache(model, slots_ + 1, capacity_, options.kv_cache)),
        inputs_{Ids::empty({slots_}), Ids::empty({slots_}), Ids::empty({slots_})} {
    for (Index slot = slots_; slot-- > 0;) free_.push_back(static_cast<std::int32_t>(slot));
  }

  std::vector<Response> run() {
    const auto total = static_cast<Index>(results_.size());
    while (done_ < total) {
      admit();
      if (!running_.empty()) advance();
    }
    return std::move(results_);
  }

 private:
  using D = typename P::Device;
  using Ids = Tensor<D, std::int32_t>;

  struct Running {
    std::size_t response;
    std::int32_t slot;
    std::int32_t position;  // of the last token, which the cache does not hold yet
  };

  static typename P::Cache make_cache(const P& model, Index slots, Index capacity, CacheType type) {
    if (type == CacheType::Float) return model.make_cache(slots, capacity);
    if constexpr (requires { model.make_cache(slots, capacity, type); })
      return model.make_cache(slots, capacity, type);
    fail<DataError>(
        "[sample] this policy keeps keys and values as float alone. HINT: leave "
        "kv-cache as it is");
  }

  Index longest_prompt() const {
    std::size_t longest = 0;
    for (std::size_t i = 0; i < prompts_.size(); ++i) {
      if (prompts_[i].empty())
        fail<DataError>(str("[sample] prompt ", i, " is empty. HINT: begin it with the BOS token"));
      require_readable(model_, prompts_[i], "sample", "prompt", i, 1);
      longest = std::max(longest, prompts_[i].size());
    }
    return static_cast<Index>(longest);
  }

  std::size_t per_prompt() const { return static_cast<std::size_t>(options_.responses); }

  // Fills free slots with the next responses, reading a prompt when its first one enters. Their
  // first tokens are drawn together: a draw is a wait for the device, and a product of the head
  // reads all its weights for one row as for all.
  void admit() {
    const std::size_t first = running_.size();
    std::vector<Tensor<D>> ends;  // of the prompts that are read here, (1, C)
    std::vector<std::size_t>
        entered;  // for each response, how many had been read; 0: the one before
    while (!free_.empty() && next_ < results_.size()) {
      const std::size_t prompt = next_ / per_prompt();
      if (next_ % per_prompt() == 0) ends.push_back(prefill(prompts_[prompt]));
      const std::int32_t slot = free_.back();
      free_.pop_back();
      const auto length = static_cast<Index>(prompts_[prompt].size());
      cache_.copy_slot(slots_, slot, length);
      results_[next_].prompt = static_cast<Index>(prompt);
      running_.push_back({next_, slot, static_cast<std::int32_t>(length - 1)});
      entered.push_back(ends.size());
      ++next_;
    }
    if (entered.empty()) return;
    append(first, first_logits(ends, entered));
    retire();
  }

  // The hidden state of its last token.
  Tensor<D> prefill(const Tokens& prompt) {
    const auto n = static_cast<Index>(prompt.size());
    Tokens positions(prompt.size()), slots(prompt.size(), static_cast<std::int32_t>(slots_));
    for (std::size_t i = 0; i < prompt.size(); ++i) positions[i] = static_cast<std::int32_t>(i);
    const auto hidden =
        forward({Ids::from(prompt, {n}), Ids::from(positions, {n}), Ids::from(slots, {n})});
    return hidden.rows(n - 1, n).clone();  // and not the others, which a view would keep
  }

  // A row of logits for each response that enters; see admit().
  Tensor<D> first_logits(const std::vector<Tensor<D>>& ends,
                         const std::vector<std::size_t>& entered) {
    const Tensor<D> before = prompt_logits_;
    Tensor<D> read;  // of the prompts that were read now
    if (!ends.empty()) {
      read = linear(stacked(ends), weights_.head);
      const Index last = read.dim(0);
      if (next_ % per_prompt() != 0) prompt_logits_ = read.rows(last - 1, last).clone();
    }
    if (ends.size() == entered.size()) return read;  // each has a prompt of its own
    std::vector<Tensor<D>> rows;
    for (const std::size_t count : entered) {
      const auto row = static_cast<Index>(count);
      rows.push_back(count == 0 ? before : read.rows(row - 1, row));
    }
    return stacked(rows);
  }

  static Tensor<D> stacked(const std::vector<Tensor<D>>& rows) {
    const Index width = rows.front().dim(1);
    const auto all = Tensor<D>::empty({static_cast<Index>(rows.size()), width});
    for (std::size_t i = 0; i < rows.size(); ++i)
      copy(D{}, all.data() + static_cast<Index>(i) * width, rows[i].data(), rows[i].bytes());
    return all;
  }

  // One more token for every running sequence. The inputs have places of their own, so that a
  // device may replay the step.
  void advance() {
    Tokens tokens, positions, slots;
    for (const Running& r : running_) {
      tokens.push_back(results_[r.response].tokens.back());
      positions.push_back(r.position);
      slots.push_back(r.slot);
    }
    const auto rows = static_cast<Index>(running_.size());
    const auto put = [rows](const Ids& to, const Tokens& from) {
      const Ids row_ids = to.rows(0, rows);
      copy_from_host(D{}, row_ids.data(), from.data(), row_ids.bytes());
      return row_ids;
    };
    const CachedBatch<D> batch{put(inputs_.tokens, tokens), put(inputs_.positions, positions),
                               put(inputs_.slots, slots)};
    append(0, step_.run(rows, [&] { return linear(forward(batch), weights_.head); }));
    retire();
  }

  Tensor<D> forward(const CachedBatch<D>& batch) { return model_.hidden(batch, cache_, weights_); }

  // Draws a token for running_[first], …, one per row of z.
  void append(std::size_t first, const Tensor<D>& z) {
    const Index rows = z.dim(0);
    std::vector<SampleKey> keys;
    for (std::size_t i = 0; i < static_cast<std::size_t>(rows); ++i) {
      const std::size_t response = running_[first + i].response;
      keys.push_back({options_.seed, options_.step, static_cast<std::uint32_t>(response),
                      static_cast<std::uint32_t>(results_[response].tokens.size())});
    }
    Tokens tokens(keys.size());
    std::vector<float> logprobs(keys.size());
    try {
      sample_rows(D{}, tokens.data(), logprobs.data(), z.data(), rows, z.dim(1), options_.sampling,
                  keys.data());
    } catch (const NumericError& error) {
      name_response(first, logprobs, error);
    }
    for (std::size_t i = 0; i < keys.size(); ++i) {
      Running& r = running_[first + i];
      results_[r.response].tokens.push_back(tokens[i]);
      results_[r.response].logprobs.push_back(logprobs[i]);
      ++r.position;
    }
  }

  // The kernel names a row of this step; a caller knows prompts and responses.
  [[noreturn]] void name_response(std::size_t first, const std::vector<float>& logprobs,
                                  const NumericError& error) const {
    std::size_t row = 0;
    while (row + 1 < logprobs.size() && !std::isnan(logprobs[row])) ++row;
    const std::size_t response = running_[first + row].response;
    throw NumericError(str("[sample] response ", response % per_prompt(), " to prompt ",
                           response / per_prompt(), ", token ", results_[response].tokens.size(),
                           ": ", error.what()));
  }

  // Responses that ended give up their slots.
  void retire() {
    std::erase_if(running_, [&](const Running& r) {
      Response& response = results_[r.response];
      const std::int32_t last = response.tokens.back();
      response.finished =
          std::find(options_.stops.begin(), options_.stops.end(), last) != options_.stops.end() ||
          (options_.stop_when && options_.stop_when(response.tokens));
      const Index length = static_cast<Index>(response.tokens.size());
      const bool full = r.position + 1 >= model_.context();
      if (!response.finished && length < options_.max_new_tokens && !full) return false;
      free_.push_back(r.slot);
      ++done_;
      if (options_.progress) options_.progress(done_, static_cast<Index>(results_.size()));
      return true;
    });
  }

  const P& model_;
  const std::vector<Tokens>& prompts_;
  const SampleOptions& options_;
  typename P::Packed weights_;  // as they are during this call
  std::vector<Response> results_;
  Index capacity_;  // tokens of a slot
  Index slots_;     // slot number `slots_` holds the prompt that is being handed out
  typename P::Cache cache_;
  CachedBatch<D> inputs_;  // of a decoding step
  Replay<D> step_;
  std::vector<std::int32_t> free_;
  std::vector<Running> running_;
  std::size_t next_ = 0;
  Index done_ = 0;
  Tensor<D> prompt_logits_;  // (1, V), of the prompt that is being handed out
};

}  // namespace detail

/// Samples `options.responses` responses to every prompt; the responses to prompt i are results
/// [i·responses, (i+1)·responses). DataError if a setting is out of range, or a prompt is empty,
/// does not leave room for a token in the context, or holds a token outside the vocabulary;
/// NumericError, naming the response, where a logit is NaN or +infinity.
template <Policy P>
std::vector<Response> sample(const P& policy, const std::vector<Tokens>& prompts,
                             const SampleOptions& options, Where where = Where::here()) {
  check_sampling(options, "sample", where);
  if (prompts.empty()) return {};
  return detail::Sampler<P>(policy, prompts, options).run();
}

}}  // namespace plumb::v0_1
