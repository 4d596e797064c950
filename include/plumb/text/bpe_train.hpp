// Training a byte-level BPE vocabulary: the pair of neighbours that occurs most often becomes a
// token, again and again.
//
// The result is that of the package tokenizers (BpeTrainer with a ByteLevel pre-tokenizer), token
// for token. Special tokens come first, then the alphabet in the order of GPT-2's letters, then the
// merges; of pairs that occur equally often the one of the lower ids. As there, a pair that a merge
// brings about anew is counted together with what there was of it, and waits in the queue again
// with the words in which it is new. What this is not: the choice of words (text/bpe.hpp's patterns
// split them); unigram training. Sources: Sennrich et al. 2016; huggingface/tokenizers,
// tokenizers/src/models/bpe/{trainer,word}.rs.
#pragma once

#include <plumb/core/fields.hpp>
#include <plumb/text/bpe_files.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <queue>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Whose way of splitting words.
enum class BpeFamily { Gpt2, Smollm, Llama3, Qwen2 };
constexpr std::array<std::pair<const char*, BpeFamily>, 4> choices(BpeFamily) {
  return {{{"gpt2", BpeFamily::Gpt2},
           {"smollm", BpeFamily::Smollm},
           {"llama3", BpeFamily::Llama3},
           {"qwen2", BpeFamily::Qwen2}}};
}

struct BpeTrainConfig {
  Index vocab = 32000;
  BpeFamily words = BpeFamily::Gpt2;
  Index min_frequency = 0;
  bool all_bytes = true;
  std::vector<std::string> special;
};

template <class F>
void fields(BpeTrainConfig& c, F&& f) {
  f(Field{"vocab", "tokens, with bytes and special ones", at_least(1)}, c.vocab);
  f(Field{"words", "whose way of splitting text into words"}, c.words);
  f(Field{"min-frequency", "a pair that occurs less often is not merged", at_least(0)},
    c.min_frequency);
  f(Field{"all-bytes", "every byte is a token; else those that occur"}, c.all_bytes);
  f(Field{"special", "a token of the chat form, such as <|im_end|>; the first ids"}, c.special);
}

/// A family's way of splitting words, with no token yet.
inline BpeVocabulary vocabulary_of(BpeFamily family) {
  BpeVocabulary v;
  v.patterns = {family == BpeFamily::Llama3  ? kLlama3Pattern
                : family == BpeFamily::Qwen2 ? kQwen2Pattern
                                             : kGpt2Pattern};
  if (family == BpeFamily::Smollm) v.patterns.insert(v.patterns.begin(), kDigitPattern);
  v.whole_words = family == BpeFamily::Llama3;
  v.compose = family == BpeFamily::Qwen2;
  return v;
}

/// Counts the words of texts, then makes the vocabulary.
class BpeTrainer {
 public:
  /// DataError if a setting is out of its range.
  explicit BpeTrainer(BpeTrainConfig config, Where where = Where::here())
      : config_(std::move(config)), v_(vocabulary_of(config_.words)), words_(v_.patterns, where) {
    check_fields(config_, "tokenizer", where);
  }

  /// Counts the words of a text. Words do not go on from one text to the next.
  void add(std::string_view text) {
    std::string composed;
    if (v_.compose) text = composed = normal_form_c(text);
    words_.split(text, [&](std::string_view word) {
      const auto found = counts_.find(word);
      if (found != counts_.end())
        ++found->second;
      else
        counts_.emplace(word, 1);
    });
  }

  /// The vocabulary of what was counted.
  BpeVocabulary train() const {
    Run run(v_, counts_, config_);
    run.merge_all();
    return std::move(run.v);
  }

 private:
  using Counts = detail::StringMap<std::int64_t>;
  using Pair = std::uint64_t;

  static Pair pair_of(std::int32_t left, std::int32_t right) {
    return static_cast<Pair>(static_cast<std::uint32_t>(left)) << 32 |
           static_cast<std::uint32_t>(right);
  }

  struct Waiting {
    std::int64_t count;
    Pair pair;
    std::vector<std::uint32_t> words;  ///< in which it may be
    bool operator<(const Waiting& other) const {
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };
  struct Pairs {
    std::int64_t count = 0;
    std::vector<std::uint32_t> words;  ///< not yet in the queue
  };
  struct Word {
    std::uint32_t begin, size;  ///< in `symbols`
    std::int64_t count;
  };

  struct Run {
    Run(const BpeVocabulary& family, const Counts& counts, const BpeTrainConfig& config)
        : v(family), most(static_cast<std::size_t>(config.vocab)), least(config.min_frequency) {
      for (const std::string& text : config.special)
        if (ids.emplace(text, size()).second) {
          v.added.push_back({text, size(), true});
          v.tokens.push_back(text);
        }
      add_alphabet(counts, config.all_bytes);
      // The order of words does not matter: counts are whole numbers.
      for (const auto& [text, count] : counts) {
        words.push_back({static_cast<std::uint32_t>(symbols.size()),
                         static_cast<std::uint32_t>(text.size()), count});
        for (const char c : text) symbols.push_back(byte_ids[static_cast<unsigned char>(c)]);
      }
      for (std::uint32_t w = 0; w < words.size(); ++w)
        for (std::uint32_t i = 1; i < words[w].size; ++i)
          change(pair_of(symbols[words[w].begin + i - 1], symbols[words[w].begin + i]), 1, w);
      enqueue();
    }

    void merge_all() {
      while (v.tokens.size() < most && !queue.empty()) {
        Waiting top = std::move(const_cast<Waiting&>(queue.top()));
        queue.pop();
        if (const std::int64_t now = pairs[top.pair].count; now != top.count) {
          top.count = now;
          queue.push(std::move(top));
          continue;
        }
        if (top.count < 1 || top.count < least) break;
        const auto left = static_cast<std::int32_t>(top.pair >> 32),
                   right = static_cast<std::int32_t>(top.pair & 0xFFFFFFFF);
        std::string bytes = v.tokens[static_cast<std::size_t>(left)];
        bytes += v.tokens[static_cast<std::size_t>(right)];
        const auto [known, is_new] = ids.emplace(letters.write(bytes), size());
        if (is_new) v.tokens.push_back(std::move(bytes));
        v.merges.push_back({left, right, known->second});
        for (const std::uint32_t w : top.words) merge_in(w, left, right, known->second);
        enqueue();
      }
      keep_last_of_equal_merges();
    }

    void merge_in(std::uint32_t w, std::int32_t left, std::int32_t right, std::int32_t merged) {
      Word& word = words[w];
      std::int32_t* const s = symbols.data() + word.begin;
      std::uint32_t out = 0;
      for (std::uint32_t i = 0; i < word.size; ++i) {
        if (s[i] != left || i + 1 == word.size || s[i + 1] != right) {
          s[out++] = s[i];
          continue;
        }
        if (out > 0) {
          change(pair_of(s[out - 1], left), -1, w);
          change(pair_of(s[out - 1], merged), 1, w);
        }
        if (i + 2 < word.size) {
          change(pair_of(right, s[i + 2]), -1, w);
          change(pair_of(merged, s[i + 2]), 1, w);
        }
        s[out++] = merged;
        ++i;
      }
      word.size = out;
    }

    void change(Pair pair, std::int64_t by, std::uint32_t w) {
      Pairs& found = pairs[pair];
      found.count += by * words[w].count;
      if (by < 0) return;
      if (found.words.empty()) changed.push_back(pair);
      if (found.words.empty() || found.words.back() != w) found.words.push_back(w);
    }
    void enqueue() {
      for (const Pair pair : changed) {
        Pairs& found = pairs[pair];
        std::vector<std::uint32_t> in = std::exchange(found.words, {});
        if (found.count > 0) queue.push({found.count, pair, std::move(in)});
      }
      changed.clear();
    }

    /// The letters in their order as characters.
    void add_alphabet(const Counts& counts, bool all) {
      std::array<bool, 256> seen{};
      if (all) seen.fill(true);
      for (const auto& [text, count] : counts)
        for (const char c : text) seen[static_cast<unsigned char>(c)] = true;
      std::vector<std::pair<std::string, unsigned char>> alphabet;
      for (int byte = 0; byte < 256; ++byte)
        if (seen[static_cast<std::size_t>(byte)])
          alphabet.emplace_back(letters.write(std::string(1, static_cast<char>(byte))),
                                static_cast<unsigned char>(byte));
      // The order of UTF-8 is that of the characters.
      std::sort(alphabet.begin(), alphabet.end());
      for (const auto& [letter, byte] : alphabet) {
        const auto [known, is_new] = ids.emplace(letter, size());
        if (is_new) v.tokens.emplace_back(1, static_cast<char>(byte));
        byte_ids[byte] = known->second;
      }
    }

    /// A pair that was merged twice stands where it was last.
    void keep_last_of_equal_merges() {
      std::unordered_map<Pair, std::size_t> last;
      for (std::size_t i = 0; i < v.merges.size(); ++i)
        last[pair_of(v.merges[i][0], v.merges[i][1])] = i;
      std::size_t i = 0;
      std::erase_if(v.merges, [&](const auto& m) { return last[pair_of(m[0], m[1])] != i++; });
    }

    std::int32_t size() const { return static_cast<std::int32_t>(v.tokens.size()); }

    BpeVocabulary v;
    std::size_t most;
    std::int64_t least;
    detail::ByteLetters letters;
    detail::StringMap<std::int32_t> ids;  ///< in letters, as special tokens are
    std::array<std::int32_t, 256> byte_ids{};
    std::vector<std::int32_t> symbols;
    std::vector<Word> words;
    std::unordered_map<Pair, Pairs> pairs;
    std::vector<Pair> changed;
    std::priority_queue<Waiting> queue;
  };

  BpeTrainConfig config_;
  BpeVocabulary v_;
  Patterns words_;
  Counts counts_;
};

}}  // namespace plumb::v0_1
