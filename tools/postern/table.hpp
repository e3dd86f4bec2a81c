// SPDX-License-Identifier: Apache-2.0
// Table: aligned columns that fit the terminal.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "terminal.hpp"

namespace postern::tool {

// Columns are as wide as their widest cell, two blanks apart. A column that is empty in every row is left out. Where the
// terminal is too narrow the widest of the flexible columns are shortened; when that is not enough, lines are just long.
class Table {
 public:
  struct Column {
    std::string heading;  // empty in every column: the table has no line of headings
    bool flexible = false;
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
