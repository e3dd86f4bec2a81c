// SPDX-License-Identifier: Apache-2.0
// Uses an installed libpostern-nvme.
#include <cstdio>
#include <postern-nvme/controller.hpp>

int main() { return std::puts(postern::nvme::status_text(0x80).c_str()) < 0; }
