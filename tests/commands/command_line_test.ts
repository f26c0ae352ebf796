import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  CACHE_COMMANDS,
  COMMANDS,
  FLAGS,
  HELP,
  readCommandLine,
} from "../../lib/commands/command_line.ts";

Deno.test("serve is the default command", () => {
  const { command, args, problems } = readCommandLine([]);
  assertEquals([command, args, problems], ["serve", [], []]);
});

Deno.test("help names every command and flag, and the commands that ask the running instance", () => {
  for (const name of COMMANDS) assert(HELP.includes(`\n  ${name} `), name);
  for (const name of Object.keys(FLAGS)) assert(HELP.includes(`--${name} `), name);
  assertEquals(CACHE_COMMANDS, ["warm", "ls", "rm", "stats", "verify"]);
  assert(HELP.includes("\nwarm, ls, rm, stats and verify ask the running instance"), HELP);
});

Deno.test("images and flags are accepted in any order", () => {
  const line = readCommandLine([
    "warm",
    "--json",
    "a:1",
    "--platform=linux/amd64,linux/arm64",
    "b",
  ]);
  assertEquals([line.command, line.args, line.problems], ["warm", ["a:1", "b"], []]);
  assertEquals([line.flags.json, line.flags.platforms], [true, ["linux/amd64", "linux/arm64"]]);
});

Deno.test("docker-proxy's health check flag runs the health command", () => {
  assertEquals(readCommandLine(["-health-check"]).command, "health");
});

Deno.test("config accepts a client and the proxy's URL", () => {
  const { client, flags } = readCommandLine(["config", "docker", "--url", "10.0.0.5:8080"]);
  assertEquals([client, flags.url?.href], ["docker", "http://10.0.0.5:8080/"]);
});

const WRONG: readonly [string, string[], string[]][] = [
  ["an unknown command", ["sevre"], ["sevre: Unknown command, did you mean serve?"]],
  ["a command like no other", ["dance"], ["dance: Unknown command"]],
  ["a flag with a slip", ["--prot=1"], ["--prot: Unknown flag, did you mean --port?"]],
  [
    "a client with a slip",
    ["config", "dokcer"],
    [
      "dokcer: Unknown client, expected docker, containerd, podman, buildkit, kubernetes, did you mean docker?",
    ],
  ],
  ["an unknown flag", ["--bogus"], ["--bogus: Unknown flag"]],
  ["a flag of another command", ["ls", "--platform=all"], ["--platform: Unknown flag for ls"]],
  ["a flag without its value", ["--port"], ["--port: Requires a value"]],
  ["a value that a flag does not take", ["ls", "--json=x"], ["--json: Does not take a value"]],
  ["nothing to warm", ["warm"], ["warm: Requires the name of an image"]],
  ["nothing to remove", ["rm", "--json"], ["rm: Requires the name of an image"]],
  ["an argument too many", ["stats", "x"], ["x: Unexpected argument"]],
  [
    "a platform that is none",
    ["warm", "a", "--platform", "amd64"],
    ["--platform: Expected all, or platforms such as linux/amd64,linux/arm64: amd64"],
  ],
  [
    "a URL with a path",
    ["config", "docker", "--url", "http://x/y"],
    ["--url: Expected a URL such as http://10.0.0.5:8080: http://x/y"],
  ],
  [
    "an unknown client",
    ["config", "crio"],
    ["crio: Unknown client, expected docker, containerd, podman, buildkit, kubernetes"],
  ],
  [
    "all of it at once",
    ["warm", "--url=http://x", "--bogus"],
    [
      "--url: Unknown flag for warm",
      "--bogus: Unknown flag",
      "warm: Requires the name of an image",
    ],
  ],
];

for (const [what, args, problems] of WRONG) {
  Deno.test(`${what} is reported: ${args.join(" ")}`, () => {
    assertEquals(readCommandLine(args).problems, problems);
  });
}

Deno.test("the parser never throws, and reports every meaningless argument", () => {
  const known = ["warm", "--json", "--url", "--url=x", "--platform=a", "--", "-", "-h", "config"];
  const arg = fc.oneof(fc.string(), fc.constantFrom(...known));
  fc.assert(fc.property(fc.array(arg), (args) => void readCommandLine(args)));
  for (const flag of ["--constructor", "--__proto__", "--toString=x", "-z"]) {
    assert(readCommandLine(["serve", flag]).problems.length > 0, flag);
  }
});
