// SPDX-License-Identifier: Apache-2.0
// postern-json POINTER: reads a JSON document from standard input and prints the value at a JSON pointer. For test
// scripts in guests without an interpreter.
#include <exception>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: postern-json POINTER < DOCUMENT\n";
    return 2;
  }
  try {
    const std::string text(std::istreambuf_iterator<char>(std::cin), {});
    const auto document = nlohmann::json::parse(text);  // rejects anything after the document
    const auto& value = document.at(nlohmann::json::json_pointer(argv[1]));
    std::cout << (value.is_string() ? value.get<std::string>() : value.dump()) << "\n";
    return 0;
  } catch (const std::exception& wrong) {
    std::cerr << wrong.what() << "\n";
    return 1;
  }
}
