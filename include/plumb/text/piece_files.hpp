// SentencePiece's own files, tokenizer.model: which pieces there are, which model, and how text is
// normalised.
//
// A Protocol Buffers message (text/wire.hpp). What it asks for that is not computed here is refused
// by its name; what it says of training alone is passed over. Source: google/sentencepiece,
// src/sentencepiece_model.proto.
#pragma once

#include <plumb/text/pieces.hpp>
#include <plumb/text/wire.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace plumb { inline namespace v0_1 {

namespace detail {

/// What a file begins with that holds pieces: the field of one, and in it the field of its text.
inline bool is_sentencepiece(std::string_view bytes) {
  if (!bytes.starts_with('\x0A')) return false;
  std::size_t at = 1;
  while (at < bytes.size() && at < 10 && static_cast<unsigned char>(bytes[at]) >= 0x80) ++at;
  return at + 1 < bytes.size() && bytes[at + 1] == '\x0A';
}

inline PieceVocabulary::Piece read_piece(WireReader field) {
  PieceVocabulary::Piece piece;
  while (field.next()) {
    if (field.number() == 1) {
      piece.text = field.bytes();
    } else if (field.number() == 2) {
      piece.score = field.real();
    } else if (field.number() == 3) {
      const std::int32_t kind = field.whole();
      if (kind < 1 || kind > 6) field.bad(str("a piece of kind ", kind));
      piece.kind = static_cast<PieceVocabulary::Kind>(kind);
    }
  }
  return piece;
}

/// Names of the pieces that begin and end a text, for want of others.
struct PieceEnds {
  std::string bos = "<s>", eos = "</s>";
};

inline void read_training(PieceVocabulary& v, PieceEnds& ends, WireReader field) {
  while (field.next()) {
    switch (field.number()) {
      case 3:
        if (const std::int32_t model = field.whole(); model == 1 || model == 2)
          v.unigram = model == 1;
        else
          field.bad(str(model == 3   ? "a model of words"
                        : model == 4 ? "a model of characters"
                                     : "an unknown model",
                        " (unigram and BPE are known)"));
        break;
      case 24:
        if (field.truth()) field.bad("treat_whitespace_as_suffix, which is unknown,");
        break;
      case 35: v.byte_fallback = field.truth(); break;
      case 44: v.unknown_text = field.bytes(); break;
      case 46: ends.bos = field.bytes(); break;
      case 47: ends.eos = field.bytes(); break;
      default: break;
    }
  }
}

inline void read_normalizer(PieceVocabulary& v, WireReader field) {
  while (field.next()) {
    switch (field.number()) {
      case 2: v.rules = field.bytes(); break;
      case 3: v.space_first = field.truth(); break;
      case 4: v.collapse = field.truth(); break;
      case 5:
        if (!field.truth()) field.bad("escape_whitespaces = false, which is unknown,");
        break;
      default: break;
    }
  }
}

/// The control piece of that text; -1: there is none.
inline std::int32_t control_piece(const PieceVocabulary& v, std::string_view text) {
  for (std::size_t i = 0; i < v.pieces.size(); ++i)
    if (v.pieces[i].kind == PieceVocabulary::Kind::Control && v.pieces[i].text == text)
      return static_cast<std::int32_t>(i);
  return -1;
}

}  // namespace detail

/// Reads the bytes of a tokenizer.model. DataError, with the place, if they are none, or ask for
/// what is not known.
inline PieceVocabulary read_sentencepiece(std::string_view bytes, const std::string& name,
                                          Where where = Where::here()) {
  PieceVocabulary v;
  v.name = name;
  v.unigram = true;  // what the format means where it says nothing
  detail::PieceEnds ends;
  WireReader field(bytes, bytes, name, where);
  while (field.next()) {
    if (field.number() == 1) {
      v.pieces.push_back(detail::read_piece(field.inner()));
    } else if (field.number() == 2) {
      detail::read_training(v, ends, field.inner());
    } else if (field.number() == 3) {
      detail::read_normalizer(v, field.inner());
    } else if (field.number() == 5) {
      PieceVocabulary after;
      detail::read_normalizer(after, field.inner());
      if (!after.rules.empty()) field.bad("rules for text that is decoded, which are unknown,");
    }
  }
  v.bos = detail::control_piece(v, ends.bos);
  v.eos = detail::control_piece(v, ends.eos);
  if (v.eos >= 0) v.stops = {v.eos};
  return v;
}

}}  // namespace plumb::v0_1
