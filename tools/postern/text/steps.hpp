// SPDX-License-Identifier: Apache-2.0
// Steps: the list that a check prints while it goes along, and hands on as JSON.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/errors.hpp"
#include "verb.hpp"

namespace postern::tool {

// The steps of one backend. As text each is printed when it is over; as JSON all of them are kept. What the library
// remarked during a step stands beneath it, and in its JSON as "remarks".
class Steps {
 public:
  explicit Steps(const Session& session) : session_(session) {}

  // `facts`: what a program would want of it, added to the step's JSON.
  void ok(std::string_view name, const std::string& detail, const Json& facts = Json::object());
  void skipped(std::string_view name, const std::string& why);
  void failed(std::string_view name, const Error& error);
  // More of the detail of the step before, on a line of its own; in JSON the facts have it.
  void more(const std::string& text);
  // A line of its own beneath the step before, never folded: for what is copied or searched for.
  void line(const std::string& text);

  // An empty line.
  void gap() const;

  [[nodiscard]] const std::vector<std::string>& failures() const noexcept { return failures_; }
  [[nodiscard]] Json json() const { return steps_; }

 private:
  void show(Style style, std::string_view mark, std::string_view name, const std::string& detail);
  void keep(std::string_view name, std::string_view outcome, const std::string& detail, const Json& facts);

  const Session& session_;
  RemarksKept remarks_;
  std::vector<std::string> failures_;
  Json steps_ = Json::array();
};

}  // namespace postern::tool
