// SPDX-License-Identifier: Apache-2.0
// Table: aligned columns that fit the terminal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "text/terminal.hpp"

namespace postern::tool {

// What becomes of a column on a terminal that is too narrow.
enum class Fit : std::uint8_t {
  whole,      // nothing: lines are just long
  shortened,  // the widest of these is cut first
  folded,     // it goes on beneath; the last column alone
};

// Columns are as wide as their widest cell, two blanks apart. A column that is empty in every row is left out.
class Table {
 public:
  struct Column {
    std::string heading;  // empty in every column: the table has no line of headings
    Fit fit = Fit::whole;
  };

  explicit Table(std::vector<Column> columns, std::size_t indent = 0);

  // One cell a column; those missing at the end are empty.
  void add_row(std::vector<std::string> cells);

  [[nodiscard]] std::string text(const Terminal& terminal) const;

 private:
  [[nodiscard]] std::vector<std::size_t> widths(std::size_t room) const;

  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
  std::size_t indent_;
};

}  // namespace postern::tool
