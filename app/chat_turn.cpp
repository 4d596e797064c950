#include "chat_turn.hpp"

#include "screen.hpp"

#include <plumb/core/real.hpp>
#include <plumb/io/json.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace plumb { inline namespace v0_1 {

namespace {

constexpr const char* kEnd = "<end>";

// What one model says of the tokens of a response, whoever said them.
struct Reading {
  std::vector<double> logprob;                   // (R)
  std::vector<std::vector<LikelyToken>> likely;  // (R)
};

// A token that says nothing has a name, so that it can be seen and pointed at.
std::string name_of(const Language& language, std::int32_t before, std::int32_t token) {
  if (detail::is_stop(language, token)) return kEnd;
  const std::string bytes = bytes_after(language, before, token);
  return bytes.empty() ? str("<", token, ">") : visible_text(bytes);
}

// One forward pass over prompt and response; the logits of a part of the rows at a time.
Reading read_response(const Loaded& loaded, const Tokens& prompt, const Tokens& response) {
  Reading out;
  if (response.empty()) return out;
  const DeviceModel& model = *loaded.model;
  Tokens sequence = prompt;
  sequence.insert(sequence.end(), response.begin(), response.end() - 1);
  require_readable(model, sequence, "chat", "response", 0);
  PackedBatch packed;
  packed.add(sequence);
  Tokens rows;
  for (std::size_t t = 0; t < response.size(); ++t)
    rows.push_back(packed.row(0, static_cast<Index>(prompt.size() + t) - 1));
  const auto hidden =
      embedding(model.hidden(Batch<Device>::from(packed)), device_vector<Device>(rows));
  const Index n = hidden.dim(0), c = hidden.dim(1), v = model.vocab();
  const Index most = std::min(n, head_rows(v));
  const auto targets = device_vector<Device>(response);
  const auto logprob = Tensor<Device>::empty({n}), lse = Tensor<Device>::empty({n});
  const auto logits = Tensor<Device>::empty({most, v});
  std::vector<std::int32_t> order(static_cast<std::size_t>(v));
  for (Index i = 0; i < n; i += most) {
    const Index count = std::min(most, n - i);
    head_logprob_forward(Device{}, logprob.data() + i, static_cast<float*>(nullptr), lse.data() + i,
                         hidden.data() + i * c, model.head().data(), targets.data() + i, count, c,
                         v, 1.0F, logits.data());
    const std::vector<float> row_logits = logits.rows(0, count).to_vector();
    const std::vector<float> said = logprob.rows(i, i + count).to_vector();
    for (Index r = 0; r < count; ++r) {
      const auto t = static_cast<std::size_t>(i + r);
      const float* z = row_logits.data() + r * v;
      const double own = said[static_cast<std::size_t>(r)];
      const std::int32_t before = t == 0 ? prompt.back() : response[t - 1];
      std::iota(order.begin(), order.end(), 0);
      const auto last = order.begin() + std::min<std::ptrdiff_t>(kLikelyTokens, v);
      std::partial_sort(order.begin(), last, order.end(), [z](std::int32_t a, std::int32_t b) {
        return z[a] != z[b] ? z[a] > z[b] : a < b;
      });
      out.logprob.push_back(own);
      out.likely.emplace_back();
      for (auto token = order.begin(); token != last; ++token)
        out.likely.back().push_back({*token, name_of(loaded, before, *token),
                                     own + (static_cast<double>(z[*token]) - z[response[t]])});
    }
  }
  return out;
}

// Tokens as pieces. Where a token ends inside a character and the next goes on with it, they are of
// one piece.
std::vector<ChatPiece> pieces_of(const Loaded& loaded, const Tokens& prompt, const Tokens& response,
                                 const Reading& own, const Reading* other) {
  std::vector<ChatPiece> pieces;
  std::string piece, begun;  // the last piece's bytes, and those of a character that is not whole
  for (std::size_t t = 0; t < response.size(); ++t) {
    const std::int32_t token = response[t], before = t == 0 ? prompt.back() : response[t - 1];
    ChatToken one{.id = token,
                  .text = name_of(loaded, before, token),
                  .logprob = own.logprob[t],
                  .beside = {},
                  .likely = own.likely[t],
                  .likely_beside = {}};
    if (other != nullptr) {
      one.beside = other->logprob[t];
      one.likely_beside = other->likely[t];
    }
    const std::string bytes = bytes_after(loaded, before, token);
    // What says nothing does not part a character's bytes, either.
    bool joins = !begun.empty() && !detail::is_stop(loaded, token);
    if (joins && !bytes.empty()) {
      const detail::Utf8Character next = detail::first_character(begun + bytes);
      joins = next.code >= 0 || next.cut;
    }
    if (!joins) {
      pieces.push_back({t, {}, {}});
      piece.clear();
    }
    piece += bytes;
    begun = piece.substr(whole_characters(piece).size());
    pieces.back().text = visible_text(piece);
    pieces.back().tokens.push_back(std::move(one));
  }
  return pieces;
}

std::string quoted(const std::string& text) { return "\"" + text + "\""; }

// The piece that token `t` of a response is in; none: it has ended.
const ChatPiece* piece_at(const ChatResponse& response, std::size_t t) {
  for (const ChatPiece& piece : response.pieces)
    if (t < piece.begin + piece.tokens.size()) return &piece;
  return nullptr;
}

Json likely_json(const std::vector<LikelyToken>& likely) {
  Json out = Json::array();
  for (const LikelyToken& one : likely)
    out.push_back(Json::array({one.text, real::exp(one.logprob)}));
  return out;
}

Json token_json(const ChatToken& token) {
  Json out = {{"id", token.id},
              {"text", token.text},
              {"differs", token.differs()},
              {"probability", real::exp(token.logprob)},
              {"likely", likely_json(token.likely)}};
  if (token.beside) {
    out["beside"] = real::exp(*token.beside);
    out["likely_beside"] = likely_json(token.likely_beside);
  }
  return out;
}

}  // namespace

std::string_view whole_characters(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const detail::Utf8Character c = detail::first_character(text.substr(at));
    if (c.cut) return text.substr(0, at);
    at += c.bytes;
  }
  return text;
}

std::string visible_text(std::string_view bytes) {
  const auto hexadecimal = [](unsigned long code, int digits) {
    std::string out;
    for (int i = digits; i-- > 0;) out += "0123456789ABCDEF"[(code >> (4 * i)) & 15U];
    return out;
  };
  std::string out;
  while (!bytes.empty()) {
    const detail::Utf8Character c = detail::first_character(bytes);
    const bool layout = c.code == '\n' || c.code == '\t';
    if (c.code >= 0 && (layout || !detail::commands_a_terminal(c.code)))
      out += bytes.substr(0, c.bytes);
    else if (c.code >= 0x80)
      out += "\\u" + hexadecimal(static_cast<unsigned long>(c.code), 4);
    else
      out += "\\x" + hexadecimal(static_cast<unsigned char>(bytes[0]), 2);
    bytes.remove_prefix(c.code >= 0 ? c.bytes : 1);
  }
  return out;
}

bool ChatToken::differs() const { return beside && std::fabs(*beside - logprob) >= real::log(2.0); }

bool ChatPiece::differs() const {
  return std::any_of(tokens.begin(), tokens.end(), [](const ChatToken& t) { return t.differs(); });
}

std::size_t ChatResponse::tokens() const {
  return pieces.empty() ? 0 : pieces.back().begin + pieces.back().tokens.size();
}

bool comparable(const Loaded& a, const Loaded& b) {
  return a.model->vocab() == b.model->vocab() &&
         a.tokenizer->fingerprint() == b.tokenizer->fingerprint();
}

ChatTurn chat_turn(std::span<const Loaded* const> models, std::string_view prompt,
                   const GenerateSettings& settings, std::uint32_t step,
                   const ChatListener& listener) {
  check<DataError>(models.size() == 1 || models.size() == 2, "[chat] one model or two can speak");
  ChatTurn turn;
  turn.compared = models.size() == 2 && comparable(*models[0], *models[1]);
  std::vector<Tokens> prompts, responses;
  Index longest = settings.sampling.max_new_tokens;
  for (const Loaded* model : models) {
    prompts.push_back(encode_prompt(*model, prompt, 1));
    if (turn.compared)
      longest = std::min(longest, model->context - static_cast<Index>(prompts.back().size()));
  }
  bool stopped = false;
  for (std::size_t side = 0; side < models.size(); ++side) {
    const Loaded& loaded = *models[side];
    ChatResponse said{
        .model = loaded.source, .text = {}, .finished = false, .stopped = false, .pieces = {}};
    Tokens tokens;
    if (!stopped) {
      SampleOptions options = settings.sampling;
      options.responses = 1;
      options.max_new_tokens = longest;
      options.stops = loaded.stops;
      options.step = step;
      const auto stops = stop_at_texts(loaded, settings.stop);
      std::size_t heard = 0;  // it may be asked twice after a token
      bool enough = false;
      options.stop_when = [&](std::span<const std::int32_t> response) {
        if (heard == response.size()) return enough;
        for (; heard < response.size(); ++heard)
          said.text += bytes_after(loaded, heard == 0 ? prompts[side].back() : response[heard - 1],
                                   response[heard]);
        stopped = listener && listener(side, said.text);
        enough = stopped || (!settings.stop.empty() && stops(response));
        return enough;
      };
      Response response = std::move(sample(*loaded.model, {prompts[side]}, options).front());
      tokens = std::move(response.tokens);
      said.finished = response.finished && !stopped;
    }
    said.stopped = stopped;
    responses.push_back(std::move(tokens));
    turn.responses.push_back(std::move(said));
  }
  for (std::size_t side = 0; side < models.size(); ++side) {
    const Tokens& response = responses[side];
    const Reading own = read_response(*models[side], prompts[side], response);
    Reading other;
    if (turn.compared) other = read_response(*models[1 - side], prompts[1 - side], response);
    turn.responses[side].pieces =
        pieces_of(*models[side], prompts[side], response, own, turn.compared ? &other : nullptr);
  }
  if (turn.compared && responses[0] != responses[1]) {
    const auto [a, b] = std::mismatch(responses[0].begin(), responses[0].end(),
                                      responses[1].begin(), responses[1].end());
    turn.first_difference = static_cast<std::size_t>(a - responses[0].begin());
  }
  return turn;
}

std::string difference_in_words(const ChatTurn& turn) {
  if (turn.responses.size() < 2) return {};
  if (!turn.compared)
    return "The two models have different tokenizers: each shows its own probabilities, and "
           "nothing "
           "is compared.";
  std::string out = "Both responses are the same.";
  if (turn.first_difference) {
    const std::size_t t = *turn.first_difference;
    const ChatPiece* a = piece_at(turn.responses[0], t);
    const ChatPiece* b = piece_at(turn.responses[1], t);
    const auto words = [](const ChatPiece* piece) {
      if (piece == nullptr) return std::string("nothing more");
      return quoted(piece->text.empty() ? piece->tokens.front().text : piece->text);
    };
    out = str("The responses differ from token ", t + 1, " on: A says ", words(a), ", B says ",
              words(b), ".");
  }
  std::size_t apart = 0, all = 0;
  for (const ChatResponse& response : turn.responses)
    for (const ChatPiece& piece : response.pieces)
      for (const ChatToken& token : piece.tokens) ++all, apart += token.differs() ? 1 : 0;
  return str(out, " One model finds ", apart, " of the ", all,
             " tokens at least twice as probable as the other does.");
}

Json turn_json(const ChatTurn& turn) {
  Json responses = Json::array();
  for (const ChatResponse& response : turn.responses) {
    Json pieces = Json::array();
    for (const ChatPiece& piece : response.pieces) {
      Json tokens = Json::array();
      for (const ChatToken& token : piece.tokens) tokens.push_back(token_json(token));
      pieces.push_back({{"begin", piece.begin},
                        {"text", piece.text},
                        {"differs", piece.differs()},
                        {"tokens", std::move(tokens)}});
    }
    responses.push_back({{"model", shown(response.model)},
                         {"text", response.text},
                         {"finished", response.finished},
                         {"stopped", response.stopped},
                         {"pieces", std::move(pieces)}});
  }
  Json out = {{"responses", std::move(responses)},
              {"compared", turn.compared},
              {"first_difference", nullptr},
              {"difference", difference_in_words(turn)}};
  if (turn.first_difference) out["first_difference"] = *turn.first_difference;
  return out;
}

}}  // namespace plumb::v0_1
