// Chat forms: what stands around a prompt so that a model knows whose turn it is.
//
// A form has a name, and a model's template is recognised by its whole text, never by a likeness: a
// wrong form gives wrong answers, and no error. Special tokens are written out in a form and become
// themselves; in a prompt they are letters. Sources: the templates of the models named below, as
// their tokenizer_config.json has them; tatsu-lab/stanford_alpaca; anthropics/hh-rlhf.
#pragma once

#include <plumb/io/file.hpp>
#include <plumb/models/language.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace detail {

struct KnownForm {
  const char* name;
  ChatForm form;
};

inline ChatForm chatml(const std::string& system, std::vector<std::string> stops,
                       float temperature = 1.0F) {
  return {.before = (system.empty() ? "" : "<|im_start|>system\n" + system + "<|im_end|>\n") +
                    "<|im_start|>user\n",
          .after = "<|im_end|>\n<|im_start|>assistant\n",
          .stops = std::move(stops),
          .temperature = temperature,
          .next = "<|im_end|>\n<|im_start|>user\n",
          .system = "<|im_start|>system\n",
          .after_system = "<|im_end|>\n<|im_start|>user\n"};
}

inline const std::vector<KnownForm>& known_forms() {
  static const std::vector<KnownForm> forms{
      {"plain", {}},
      {"chatml", chatml("", {"<|im_end|>"})},
      // At temperature 1 half of what SmolLM2-135M says is noise.
      {"smollm", chatml("You are a helpful AI assistant named SmolLM, trained by Hugging Face",
                        {"<|im_end|>", "<|endoftext|>"}, 0.5F)},
      {"qwen2", chatml("You are a helpful assistant.", {"<|im_end|>", "<|endoftext|>"}, 0.7F)},
      {"qwen2.5", chatml("You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
                         {"<|im_end|>", "<|endoftext|>"}, 0.7F)},
      {"llama-2",
       {.before = "[INST] ",
        .after = " [/INST]",
        .stops = {"</s>"},
        .next = " </s><s>[INST] ",
        .system = "[INST] <<SYS>>\n",
        .after_system = "\n<</SYS>>\n\n"}},
      {"llama-3",
       {.before = "<|start_header_id|>user<|end_header_id|>\n\n",
        .after = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        .stops = {"<|eot_id|>", "<|end_of_text|>"},
        .temperature = 0.6F,
        .next = "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
        .system = "<|start_header_id|>system<|end_header_id|>\n\n",
        .after_system = "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"}},
      {"alpaca",
       {.before = "Below is an instruction that describes a task. Write a response that "
                  "appropriately completes the request.\n\n### Instruction:\n",
        .after = "\n\n### Response:\n"}},
      {"human-assistant",
       {.before = "\n\nHuman: ", .after = "\n\nAssistant:", .next = "\n\nHuman: "}},
  };
  return forms;
}

}  // namespace detail

/// The names of the forms, for a message.
inline std::string chat_form_names() {
  std::string names;
  for (const auto& known : detail::known_forms())
    names += str(names.empty() ? "" : ", ", known.name);
  return names;
}

/// The form of that name. DataError naming all of them if there is none.
inline ChatForm chat_form(std::string_view name, Where where = Where::here()) {
  for (const auto& known : detail::known_forms())
    if (name == known.name) return known.form;
  fail<DataError>(str("[chat] there is no chat form '", shown(std::string(name)),
                      "'. HINT: they are ", chat_form_names()),
                  where);
}

namespace detail {

/// The parts of the templates (Jinja) that are known.
struct Jinja {
  std::string loop = "{% for message in messages %}";
  std::string turns =
      "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
      "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
  std::string before_system = loop +
                              "{% if loop.first and messages[0]['role'] != 'system' %}"
                              "{{ '<|im_start|>system\n";
  std::string after_system = "<|im_end|>\n' }}{% endif %}" + turns;
  std::string llama3 =
      "{% set loop_messages = messages %}{% for message in loop_messages %}"
      "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
      "+ message['content'] | trim + '<|eot_id|>' %}"
      "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
      "{{ content }}{% endfor %}{% if add_generation_prompt %}"
      "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";
};

/// The known form with the same text around a prompt; the plain one if there is none.
inline ChatForm form_like(const ChatForm& form) {
  for (const auto& known : known_forms())
    if (known.form.before == form.before && known.form.after == form.after) return known.form;
  return {};
}

/// What a known form has between `begin` and `end`; nothing if it has not these.
inline std::optional<std::string> between(const std::string& text, const std::string& begin,
                                          const std::string& end) {
  if (text.size() < begin.size() + end.size() || !text.starts_with(begin) || !text.ends_with(end))
    return std::nullopt;
  return text.substr(begin.size(), text.size() - begin.size() - end.size());
}

}  // namespace detail

/// The form that a model's template (Jinja) renders for one prompt. DataError, with the template's
/// beginning, if it is not, as a whole, one of those that are known.
inline ChatForm recognised_form(std::string jinja, Where where = Where::here()) {
  if (jinja.empty()) return {};
  const detail::Jinja known;
  // A line's end may be written as one in the template, or as \\n.
  for (std::size_t at = 0; (at = jinja.find("\\n", at)) != jinja.npos;) jinja.replace(at, 2, "\n");
  if (jinja == known.loop + known.turns) return chat_form("chatml", where);
  if (jinja == known.llama3) return chat_form("llama-3", where);
  const auto system = detail::between(jinja, known.before_system, known.after_system);
  if (system && system->find_first_of("'\\{}") == system->npos) {
    const ChatForm form = detail::chatml(*system, {"<|im_end|>"});
    const ChatForm named = detail::form_like(form);
    return named == ChatForm{} ? form : named;
  }
  fail<DataError>(
      str("[chat] the model's chat template is not one of those known (it begins \"",
          repaired_utf8(jinja.substr(0, 80)),
          "\"), and is not guessed. HINT: name its form with --chat: ", chat_form_names()),
      where);
}

/// The template that recognised_form() reads as this form; empty for the plain one. DataError if
/// there is none for it.
inline std::string chat_template(const ChatForm& form, Where where = Where::here()) {
  const detail::Jinja known;
  if (form.before.empty() && form.after.empty()) return {};
  const ChatForm chatml = detail::chatml("", {}), llama3 = chat_form("llama-3");
  if (form.before == llama3.before && form.after == llama3.after) return known.llama3;
  if (form.after == chatml.after) {
    if (form.before == chatml.before) return known.loop + known.turns;
    const auto system =
        detail::between(form.before, "<|im_start|>system\n", "<|im_end|>\n" + chatml.before);
    if (system && system->find_first_of("'\\{}") == system->npos)
      return known.before_system + *system + known.after_system;
  }
  fail<DataError>(
      str("[chat] the chat form that begins \"", repaired_utf8(form.before.substr(0, 40)),
          "\" has no template in other makers' files. HINT: write Plumb's own format "
          "(.safetensors), which keeps it"),
      where);
}

}}  // namespace plumb::v0_1
