// Flags out of lists of settings, on CLI11, which parses the words, checks which flags there are
// and prints the help. What a value may be is the list's own affair (core/fields.hpp), so a flag, a
// settings file and a caller of the library are held to the same.
//
// Order of precedence: defaults, then --config FILE wherever it stands, then flags.
#pragma once

#include <plumb/io/settings.hpp>

#include <CLI/CLI.hpp>

#include <functional>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// The flags of one command, and what was said by them.
class Flags {
 public:
  explicit Flags(CLI::App& app) : app_(&app) {}

  /// A flag for every setting of a list, and --config.
  template <class Settings>
  void add(Settings& settings) {
    fields(settings, [&](const Field& field, auto& member) { add_one(field, member); });
    app_->add_option("--config", config_, "settings as a JSON object; flags win over it");
    read_config_ = [this, &settings] {
      if (!config_.empty())
        read_settings(settings, parse_json(read_file(config_), shown(config_)), shown(config_));
    };
  }

  /// One flag: `field` says all there is to say of it.
  template <class T>
  void add_one(const Field& field, T& member) {
    const std::string name = field.name;
    CLI::Option* option;
    if constexpr (std::is_same_v<T, bool>) {
      option = app_->add_flag_function(
          str("--", name, ",!--no-", name),
          [this, name, &member](std::int64_t count) {
            said_.push_back([&member, count] { member = count > 0; });
          },
          help_of(field));
      if (member) option->description(help_of(field) + " (default; --no-" + name + ")");
    } else {
      const auto keep = [this, name, range = field.range, &member](const std::string& text) {
        said_.push_back([name, range, text, &member] {
          const std::string complaint = parse_setting(Field{name.c_str(), "", range}, member, text);
          if (!complaint.empty()) fail<DataError>(str("[flags] --", name, " ", complaint));
        });
      };
      if constexpr (std::is_same_v<T, std::vector<std::string>>) {
        option = app_->add_option_function<std::vector<std::string>>(
            "--" + name,
            [keep, this, &member](const std::vector<std::string>& texts) {
              said_.push_back([&member] { member.clear(); });
              for (const std::string& text : texts) keep(text);
            },
            help_of(field));
        option->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
      } else {
        option = app_->add_option_function<std::string>("--" + name, keep, help_of(field));
        option->default_str(text_of(member));
      }
      option->type_name(type_of<T>());
    }
    if (*field.group != '\0') option->group(field.group);
  }

  /// What a setting that names a method makes of the others, before these are said.
  void preset(std::function<void()> choose) { preset_ = std::move(choose); }

  /// Whether a flag or the --config file says this setting.
  bool says(const std::string& name) const {
    if (app_->count("--" + name) > 0) return true;
    return !config_.empty() && parse_json(read_file(config_), shown(config_)).contains(name);
  }

  /// Settings as the file and the flags leave them. DataError naming what makes no sense.
  void apply() {
    const auto say_all = [&] {
      if (read_config_) read_config_();
      for (const auto& set : said_) set();
    };
    say_all();
    if (!preset_) return;
    preset_();
    say_all();
  }

 private:
  static std::string help_of(const Field& field) {
    std::string out = field.help;
    if (*field.unit != '\0') out += str(", ", field.unit);
    const std::string range = field.range.text();
    if (!range.empty()) out += str(" (", range, ")");
    return out;
  }
  template <class T>
  static std::string type_of() {
    if constexpr (Choice<T>) return choice_names<T>();
    if constexpr (std::is_integral_v<T>) return "N";
    if constexpr (std::is_floating_point_v<T>) return "X";
    return "TEXT";
  }
  template <class T>
  static std::string text_of(const T& value) {
    const Json json = setting_json(value);
    return json.is_string() ? json.template get<std::string>() : json.dump();
  }

  CLI::App* app_;
  std::string config_;
  std::function<void()> read_config_, preset_;
  std::vector<std::function<void()>> said_;
};

}}  // namespace plumb::v0_1
