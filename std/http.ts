// The typed door to std's HTTP helpers as npm carries them.
// @ts-types="./http.d.ts"
export { STATUS_CODE, STATUS_TEXT } from "npm:deno-std@1.4.0/http/status.js";
