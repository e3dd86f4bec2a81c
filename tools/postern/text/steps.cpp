// SPDX-License-Identifier: Apache-2.0
// Steps: the list of steps that check prints as it runs.
#include "text/steps.hpp"

#include <fmt/format.h>

namespace postern::tool {
namespace {

constexpr std::size_t mark_width = 4;
constexpr std::size_t name_width = 11;
constexpr std::size_t indent = 2 + mark_width + 2 + name_width + 2;

}  // namespace

void Steps::ok(std::string_view name, const std::string& detail, const Json& facts) {
  show(Style::good, "ok", name, detail);
  keep(name, "ok", detail, facts);
}

void Steps::skipped(std::string_view name, const std::string& why) {
  show(Style::faint, "skip", name, why);
  keep(name, "skipped", why, Json::object());
}

void Steps::failed(std::string_view name, const Error& error) {
  show(Style::bad, "FAIL", name, error_line(error));
  if (!session_.json()) session_.print_now(error_details(error, session_.out, indent));
  failures_.emplace_back(name);
  keep(name, "failed", error_line(error), {{"error", error_json(error)}});
}

void Steps::more(const std::string& text) {
  if (!text.empty()) line(fold(session_.out, text, indent));
}

void Steps::line(const std::string& text) {
  if (!session_.json()) session_.print_now(std::string(indent, ' ') + text + "\n");
}

void Steps::gap() const {
  if (!session_.json()) session_.print_now("\n");
}

void Steps::show(Style style, std::string_view mark, std::string_view name, const std::string& detail) {
  if (session_.json()) return;
  const std::string painted = paint(session_.out, style, mark) + std::string(mark_width - mark.size(), ' ');
  session_.print_now(fmt::format("  {}  {:<{}}  {}\n", painted, name, name_width, fold(session_.out, detail, indent)));
}

void Steps::keep(std::string_view name, std::string_view outcome, const std::string& detail, const Json& facts) {
  Json step = {{"step", name}, {"outcome", outcome}, {"detail", detail}};
  step.update(facts);
  for (Remark& remark : remarks_.take()) {
    more(remark.text);
    step["remarks"].push_back(std::move(remark.json));
  }
  steps_.push_back(std::move(step));
}

}  // namespace postern::tool
