import { assertEquals, assertThrows } from "@std/assert";
import { OciError } from "../../lib/oci/error.ts";
import {
  checkRequest,
  checkTokenParameters,
  MAX_AUTHORIZATION,
  MAX_FIELD,
  MAX_FIELDS,
  MAX_PARAMETER,
  MAX_PASSWORD,
  MAX_PATH,
  MAX_QUERY,
  MAX_REFRESH_TOKEN,
  MAX_SCOPE,
  MAX_SCOPES,
} from "../../lib/request/bounds.ts";
import { basicAuthorization } from "../../lib/auth/credential.ts";

/** The status that `work` is refused with; 200 where it is not. */
function statusOf(work: () => void): number {
  try {
    work();
    return 200;
  } catch (error) {
    if (error instanceof OciError) return error.status;
    throw error;
  }
}

const x = (length: number) => "x".repeat(length);
const BASE = "http://docker.example.com";

const TARGETS: readonly (readonly [string, string, number])[] = [
  ["an ordinary path", "/v2/library/nginx/manifests/latest", 200],
  ["the longest path", `/${x(MAX_PATH)}`, 200],
  ["a longer path", `/${x(MAX_PATH + 300)}`, 400],
  ["the longest query", `/v2/?${x(MAX_QUERY - 1)}`, 200],
  ["a longer query", `/v2/?${x(MAX_QUERY)}`, 400],
  ["nothing but question marks", "?".repeat(MAX_QUERY + 100), 400],
];

for (const [name, path, status] of TARGETS) {
  Deno.test(`a request with ${name} is ${status}`, () => {
    assertEquals(
      statusOf(() => checkRequest({ url: BASE + path, headers: new Headers() })),
      status,
    );
  });
}

const fields = (count: number, value = "b"): [string, string][] =>
  Array.from({ length: count }, (_, i) => [`x-${i}`, value]);

const HEADERS: readonly (readonly [string, [string, string][], number])[] = [
  ["a hundred fields", fields(MAX_FIELDS), 200],
  ["one field more", fields(MAX_FIELDS + 1), 431],
  ["the longest field", [["accept", x(MAX_FIELD)]], 200],
  ["a longer field", [["accept", x(MAX_FIELD + 1)]], 431],
  ["the longest Authorization", [["authorization", x(MAX_AUTHORIZATION)]], 200],
  ["a longer Authorization", [["authorization", x(MAX_AUTHORIZATION + 1)]], 431],
  ["fields that are too long together", fields(3, x(6000)), 431],
];

for (const [name, list, status] of HEADERS) {
  Deno.test(`a request with ${name} is ${status}`, () => {
    const headers = new Headers(list);
    assertEquals(statusOf(() => checkRequest({ url: `${BASE}/v2/`, headers })), status);
  });
}

const PARAMETERS: readonly (readonly [string, string[], Record<string, string>, number])[] = [
  ["sixteen scopes", Array(MAX_SCOPES).fill("a"), {}, 200],
  ["one scope more", Array(MAX_SCOPES + 1).fill("a"), {}, 400],
  ["sixteen scopes in one", [Array.from({ length: 16 }, (_, i) => x(400 + i)).join(" ")], {}, 200],
  ["one more in one", [Array.from({ length: 17 }, (_, i) => x(i + 1)).join(" ")], {}, 400],
  ["the longest scope", [x(MAX_SCOPE)], {}, 200],
  ["a longer scope", [x(MAX_SCOPE + 1)], {}, 400],
  ["the longest user name", [], { username: x(MAX_PARAMETER) }, 200],
  ["a longer user name", [], { username: x(MAX_PARAMETER + 1) }, 400],
  ["the longest password", [], { password: x(MAX_PASSWORD) }, 200],
  ["a longer password", [], { password: x(MAX_PASSWORD + 1) }, 400],
  ["the longest refresh token", [], { refresh_token: x(MAX_REFRESH_TOKEN) }, 200],
  ["a longer refresh token", [], { refresh_token: x(MAX_REFRESH_TOKEN + 1) }, 400],
  ["a longer account", [], { account: x(MAX_PARAMETER + 1) }, 400],
];

for (const [name, scopes, values, status] of PARAMETERS) {
  Deno.test(`a token request with ${name} is ${status}`, () => {
    assertEquals(statusOf(() => checkTokenParameters({ scopes, values })), status);
  });
}

Deno.test("the longest user name and password fit an Authorization", () => {
  const authorization = basicAuthorization(x(MAX_PARAMETER), x(MAX_PASSWORD));
  assertEquals(authorization.length <= MAX_AUTHORIZATION, true);
  const headers = new Headers({ authorization });
  checkRequest({ url: `${BASE}/v2/`, headers });
});

Deno.test("what is refused is not repeated", () => {
  const headers = new Headers({ authorization: `Bearer ${x(MAX_AUTHORIZATION)}` });
  const error = assertThrows(() => checkRequest({ url: `${BASE}/v2/`, headers }), OciError);
  assertEquals([error.message, error.detail], ["Header fields too large", undefined]);
});
