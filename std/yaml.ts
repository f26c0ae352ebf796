// The typed door to std's YAML parser as npm carries it; for tests.
// @ts-types="./yaml.d.ts"
export { parse, parseAll } from "npm:deno-std@1.4.0/yaml/parse.js";
