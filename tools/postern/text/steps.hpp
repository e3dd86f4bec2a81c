// SPDX-License-Identifier: Apache-2.0
// Steps: the list of steps that check prints as it runs, and returns as JSON.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "command.hpp"
#include "text/errors.hpp"

namespace postern::tool {

// The steps of one pass. Text is printed at the end of each step; JSON is collected. Remarks that the library logged
// during a step are printed below it, and are in its JSON as "remarks".
class Steps {
 public:
  explicit Steps(const Session& session) : session_(session) {}

  // `facts`: values for programs, added to the step's JSON.
  void ok(std::string_view name, const std::string& detail, const Json& facts = Json::object());
  void skipped(std::string_view name, const std::string& why);
  void failed(std::string_view name, const Error& error);
  // Prints another line of detail of the previous step; not in JSON, where `facts` have it.
  void more(const std::string& text);
  // Prints a line below the previous step that is never folded: for text to copy or search for.
  void line(const std::string& text);

  // Prints an empty line.
  void gap() const;

  [[nodiscard]] const std::vector<std::string>& failures() const noexcept { return failures_; }
  [[nodiscard]] Json json() const { return steps_; }

 private:
  void show(Style style, std::string_view mark, std::string_view name, const std::string& detail);
  void keep(std::string_view name, std::string_view outcome, const std::string& detail, const Json& facts);

  const Session& session_;
  RemarkCollector remarks_;
  std::vector<std::string> failures_;
  Json steps_ = Json::array();
};

}  // namespace postern::tool
