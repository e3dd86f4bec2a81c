// SPDX-License-Identifier: Apache-2.0
// Table: aligned columns that fit the terminal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "text/terminal.hpp"

namespace postern::tool {

// How a column fits a terminal that is too narrow.
enum class Fit : std::uint8_t {
  whole,      // unchanged: lines are too long
  shortened,  // cut; the widest of these first
  folded,     // continued on the next line; only for the last column
};

// Columns are as wide as their widest cell, two blanks apart. Columns that are empty in every row are left out.
class Table {
 public:
  struct Column {
    std::string heading;  // if empty in every column, the table has no headings
    Fit fit = Fit::whole;
  };

  explicit Table(std::vector<Column> columns, std::size_t indent = 0);

  // One cell per column; missing ones at the end are empty.
  void add_row(std::vector<std::string> cells);

  [[nodiscard]] std::string text(const Terminal& terminal) const;

 private:
  [[nodiscard]] std::vector<std::size_t> widths(std::size_t room) const;

  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
  std::size_t indent_;
};

}  // namespace postern::tool
