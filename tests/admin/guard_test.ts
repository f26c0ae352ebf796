import { assertEquals } from "@std/assert";
import { refuseForeign } from "../../lib/admin/guard.ts";

const LOOPBACK = { host: "127.0.0.1" };
const NETWORK = { host: "0.0.0.0" };

function asked(headers: Record<string, string>, method = "GET"): Request {
  return new Request("http://127.0.0.1:9090/api/overview", { headers, method });
}

Deno.test("only requests of the operator's tools and of the page are accepted", () => {
  const table: [string, Request, typeof LOOPBACK, number | undefined][] = [
    ["a tool", asked({ host: "127.0.0.1:9090" }), LOOPBACK, undefined],
    ["a tool by name", asked({ host: "localhost:9090" }), LOOPBACK, undefined],
    ["IPv6", asked({ host: "[::1]:9090" }), { host: "::1" }, undefined],
    ["a rebound name", asked({ host: "evil.example:9090" }), LOOPBACK, 403],
    ["no Host at all", asked({ host: "" }), LOOPBACK, 403],
    [
      "a name of the operator's, with a token",
      asked({ host: "proxy.lan:9090" }),
      NETWORK,
      undefined,
    ],
    [
      "the page",
      asked({ host: "127.0.0.1:9090", "sec-fetch-site": "same-origin" }),
      LOOPBACK,
      undefined,
    ],
    ["typed in", asked({ host: "127.0.0.1:9090", "sec-fetch-site": "none" }), LOOPBACK, undefined],
    [
      "another site",
      asked({ host: "127.0.0.1:9090", "sec-fetch-site": "cross-site" }),
      LOOPBACK,
      403,
    ],
    [
      "another port",
      asked({ host: "127.0.0.1:9090", "sec-fetch-site": "same-site" }),
      LOOPBACK,
      403,
    ],
    [
      "a link on another site",
      asked({
        host: "localhost:9090",
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "navigate",
      }),
      LOOPBACK,
      undefined,
    ],
    [
      "a form on another site",
      asked(
        { host: "localhost:9090", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate" },
        "POST",
      ),
      LOOPBACK,
      403,
    ],
    [
      "an old browser's other site",
      asked({ host: "127.0.0.1:9090", origin: "https://evil.example" }, "POST"),
      LOOPBACK,
      403,
    ],
    ["an opaque origin", asked({ host: "127.0.0.1:9090", origin: "null" }, "POST"), LOOPBACK, 403],
    [
      "its own origin",
      asked({ host: "127.0.0.1:9090", origin: "http://127.0.0.1:9090" }, "POST"),
      LOOPBACK,
      undefined,
    ],
  ];
  for (const [what, request, options, expected] of table) {
    assertEquals(refuseForeign(request, options)?.status, expected, what);
  }
});
