// Re-exports std's YAML parser from npm with types, for tests.
// @ts-types="./yaml.d.ts"
export { parse, parseAll } from "npm:deno-std@1.4.0/yaml/parse.js";
