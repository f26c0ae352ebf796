// The typed door to std's assertions as npm carries them: JSR is one line away (see ARCHITECTURE.md).
// @ts-types="./assert.d.ts"
export {
  assert,
  assertEquals,
  assertExists,
  assertGreater,
  assertInstanceOf,
  AssertionError,
  assertLess,
  assertMatch,
  assertNotEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "npm:deno-std@1.4.0/assert/mod.js";
