// SPDX-License-Identifier: Apache-2.0
// check_json(): follows the events of nlohmann's parser, with the path of the current value.
#include "sim/hosts/json_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

namespace postern::sim {
namespace {

using JsonValue = nlohmann::json;

constexpr std::size_t deepest = 8;  // a description needs 3: the host, its list of functions, a function

std::string line_and_column(std::string_view text, std::size_t at) {
  const std::string_view before = text.substr(0, at);
  const auto lines = std::count(before.begin(), before.end(), '\n');
  const std::size_t line_start = before.rfind('\n') + 1;  // 0 on the first line
  return fmt::format("line {}, column {}", lines + 1, before.size() - line_start + 1);
}

// Each event returns whether the parser continues.
class JsonChecker final : public nlohmann::json_sax<JsonValue> {
 public:
  explicit JsonChecker(std::string_view text) : text_(text) {}
  [[nodiscard]] JsonFault take_fault() { return std::move(fault_); }

  bool null() override { return begin_value(); }
  bool boolean(bool /*value*/) override { return begin_value(); }
  bool number_integer(number_integer_t /*value*/) override { return begin_value(); }
  bool number_unsigned(number_unsigned_t /*value*/) override { return begin_value(); }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override { return begin_value(); }
  bool string(string_t& /*value*/) override { return begin_value(); }
  bool binary(binary_t& /*value*/) override { return begin_value(); }
  bool start_object(std::size_t /*elements*/) override { return open(false); }
  bool start_array(std::size_t /*elements*/) override { return open(true); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& value) override {
    Level& level = levels_.back();
    level.key = value;
    if (level.keys.insert(value).second) return true;
    return refuse("the key appears twice in one object", "remove one of them");
  }

  // `position` is the number of bytes read, up to the end of the token.
  bool parse_error(std::size_t position, const std::string& token, const JsonValue::exception& error) override {
    constexpr int number_overflow = 406;
    if (error.id == number_overflow) {
      (void)begin_value();
      const std::size_t start = position - std::min(position, token.size());
      return refuse(fmt::format("the number {} is out of range ({})", token, line_and_column(text_, start)),
                    "write a number from 0 to 2^64 - 1");
    }
    // "[json.exception.parse_error.101] parse error at line 3, column 5: ..."
    const std::string_view words(error.what());
    fault_ = {"", fmt::format("this is not JSON: {}", words.substr(std::min(words.size(), words.find(' ') + 1))), ""};
    return false;
  }

 private:
  struct Level {
    bool is_array = false;
    std::size_t values = 0;  // the values of an array so far
    std::string key;         // the last key of an object
    std::set<std::string> keys;
  };

  [[nodiscard]] std::string path() const {
    std::string path;
    for (const Level& level : levels_) {
      if (level.is_array) {
        path += fmt::format("[{}]", level.values - 1);
      } else {
        path += (path.empty() ? "" : ".") + level.key;
      }
    }
    return path;
  }
  bool refuse(std::string reason, std::string remedy) {
    fault_ = {path(), std::move(reason), std::move(remedy)};
    return false;
  }
  bool begin_value() {
    if (!levels_.empty() && levels_.back().is_array) ++levels_.back().values;
    return true;
  }
  bool open(bool is_array) {
    (void)begin_value();
    if (levels_.size() == deepest) {
      return refuse(fmt::format("lists and objects are nested more than {} deep", deepest),
                    "a host needs 3: itself, its list of functions, and a function");
    }
    levels_.push_back({.is_array = is_array, .values = 0, .key = {}, .keys = {}});
    return true;
  }
  bool close() {
    levels_.pop_back();
    return true;
  }

  std::string_view text_;
  std::vector<Level> levels_;  // the lists and objects that contain the value
  JsonFault fault_;
};

}  // namespace

JsonFault check_json(std::string_view text) {
  JsonChecker checker(text);
  (void)JsonValue::sax_parse(text, &checker);
  return checker.take_fault();
}

}  // namespace postern::sim
