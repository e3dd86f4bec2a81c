// SPDX-License-Identifier: Apache-2.0
// Table: aligned columns that fit the terminal.
#include "text/table.hpp"

#include <algorithm>
#include <utility>

namespace postern::tool {
namespace {

constexpr std::size_t gap = 2;
constexpr std::size_t narrowest = 12;  // a narrower column would be useless

// Returns the first `width` columns of UTF-8 text; the last three are dots if it is cut.
std::string shortened(const std::string& text, std::size_t width) {
  if (columns_of(text) <= width) return text;
  std::string kept;
  std::size_t columns = 0;
  for (const char byte : text) {
    const bool starts = (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
    if (starts && ++columns > width - 3) break;
    kept += byte;
  }
  return kept + "...";
}

}  // namespace

Table::Table(std::vector<Column> columns, std::size_t indent) : columns_(std::move(columns)), indent_(indent) {}

void Table::add_row(std::vector<std::string> cells) {
  for (std::string& cell : cells) cell = printable(cell);
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

std::vector<std::size_t> Table::widths(std::size_t room) const {
  std::vector<std::size_t> widths(columns_.size(), 0);
  for (std::size_t column = 0; column < columns_.size(); ++column) {
    for (const auto& row : rows_) widths[column] = std::max(widths[column], columns_of(row[column]));
    if (widths[column] > 0) widths[column] = std::max(widths[column], columns_of(columns_[column].heading));
  }
  if (room == 0 || columns_.back().fit == Fit::folded) return widths;
  const auto total = [&] {
    std::size_t sum = indent_;
    bool first = true;
    for (const std::size_t width : widths) {
      if (width == 0) continue;
      sum += width + (first ? 0 : gap);
      first = false;
    }
    return sum;
  };
  while (total() > room) {
    std::size_t* widest = nullptr;
    for (std::size_t column = 0; column < columns_.size(); ++column) {
      if (columns_[column].fit != Fit::shortened || widths[column] <= narrowest) continue;
      if (widest == nullptr || widths[column] >= *widest) widest = &widths[column];
    }
    if (widest == nullptr) break;
    --*widest;
  }
  return widths;
}

std::string Table::text(const Terminal& terminal) const {
  const std::vector<std::size_t> widths = this->widths(terminal.width);
  const auto line_of = [&](const std::vector<std::string>& cells) {
    std::string line;
    std::size_t reached = 0;
    for (std::size_t column = 0; column < cells.size(); ++column) {
      if (widths[column] == 0) continue;
      const bool folded = columns_[column].fit == Fit::folded;
      line += folded ? fold(terminal, cells[column], indent_ + reached) : shortened(cells[column], widths[column]);
      reached += widths[column] + gap;
      // Pads by columns, not bytes; the last cell is not padded.
      const std::size_t used = columns_of(line);
      if (used < reached) line.append(reached - used, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    return line;
  };

  std::string text;
  const std::string margin(indent_, ' ');
  std::vector<std::string> headings;
  for (const Column& column : columns_) headings.push_back(column.heading);
  const std::string heading = line_of(headings);
  if (!heading.empty()) text += margin + paint(terminal, Style::heading, heading) + "\n";
  for (const auto& row : rows_) text += margin + line_of(row) + "\n";
  return text;
}

}  // namespace postern::tool
