#!/usr/bin/env node
// Runs the program `larder` of this platform's package, with its arguments, its signals and its exit status.
"use strict";

const { spawn } = require("node:child_process");
const { constants } = require("node:os");
const { isatty } = require("node:tty");

const platform = `${process.platform}-${process.arch}`;

let program;
try {
  program = require.resolve(`larder-cli-${platform}/larder`);
} catch {
  const known = Object.keys(require("./package.json").optionalDependencies).map((name) => name.slice("larder-cli-".length));
  console.error(
    known.includes(platform)
      ? `larder: the package larder-cli-${platform} is missing: install larder-cli without --omit=optional, on a Linux with glibc`
      : `larder: there is no package for ${platform}, only for ${known.join(", ")}: build the program from source`,
  );
  process.exit(1);
}

const child = spawn(program, process.argv.slice(2), { stdio: "inherit" });
child.on("error", (error) => {
  console.error(`larder: cannot run ${program}: ${error.message}`);
  process.exit(1);
});

// The launcher opens none of its own streams: Node.js would make them non-blocking, for the program too.
//
// The program ends by itself, and the launcher after it. A terminal sends Ctrl-C to both, and a second one would end the
// program at once.
const onTerminal = [0, 1, 2].some((stream) => isatty(stream));
process.on("SIGINT", () => onTerminal || child.kill("SIGINT"));
process.on("SIGTERM", () => child.kill("SIGTERM"));
process.on("SIGHUP", () => child.kill("SIGHUP"));

child.on("exit", (status, signal) => process.exit(signal ? 128 + constants.signals[signal] : status));
