import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  checkEngines,
  describeEngine,
  type EngineValues,
  parseIndexSetting,
  parseRedisUrl,
  parseStoreSetting,
} from "../../lib/config/engine_url.ts";

const redis = (rest: Record<string, unknown>) => ({
  engine: "redis",
  mode: "single",
  tls: false,
  username: undefined,
  password: undefined,
  database: 0,
  master: undefined,
  prefix: "deno-docker-proxy",
  ...rest,
});

Deno.test("a Redis URL sets host, account, database, TLS, cluster and sentinel", () => {
  const table: [string, Record<string, unknown>][] = [
    ["redis://r", { hosts: [{ host: "r", port: 6379 }] }],
    ["rediss://r:7000/3", { hosts: [{ host: "r", port: 7000 }], tls: true, database: 3 }],
    ["redis://u:p%40ss@r", {
      hosts: [{ host: "r", port: 6379 }],
      username: "u",
      password: "p@ss",
    }],
    ["redis://:secret@[::1]:7", { hosts: [{ host: "::1", port: 7 }], password: "secret" }],
    ["redis://a,b:7000?cluster=true&prefix=x", {
      mode: "cluster",
      hosts: [{ host: "a", port: 6379 }, { host: "b", port: 7000 }],
      prefix: "x",
    }],
    ["redis://a,b/1?sentinel=main", {
      mode: "sentinel",
      hosts: [{ host: "a", port: 26379 }, { host: "b", port: 26379 }],
      master: "main",
      database: 1,
    }],
  ];
  for (const [text, expected] of table) {
    assertEquals(parseRedisUrl(text) as unknown, redis(expected), text);
  }
});

Deno.test("an unknown backend URL is rejected without printing its password", () => {
  const refused = [
    "http://r",
    "redis://",
    "redis://a,b",
    "redis://r/x",
    "redis://r?color=blue",
    "redis://r/1?cluster=true",
    "redis://r?cluster=true&sentinel=m",
    "s3://",
    "s3://UPPER",
    "s3://key:hunter2@bucket",
    "s3://bucket?endpoint=ftp://x",
    "s3://bucket?endpoint=https://key:hunter2@host",
    "mysql://user:hunter2@host",
  ];
  for (const text of refused) {
    const error = assertThrows(() => parseStoreSetting(text), RangeError, undefined, text);
    assert(!error.message.includes("hunter2"), text);
  }
  assertThrows(() => parseIndexSetting("s3://bucket"), RangeError);
});

Deno.test("an unencoded password is read whole or rejected, and no part of it is printed", () => {
  for (
    const sign of ["@", "/", "?", "#", ":", "%", "&", "=", ",", "@/", "/@", "?@", " ", "[", "]"]
  ) {
    const password = `hunter2${sign}hunter2`;
    for (
      const text of [
        `redis://user:${password}@host:1/2`,
        `rediss://:${password}@host?cluster=true`,
        `mysql://user:${password}@host`,
        `s3://key:${password}@bucket`,
        `s3://bucket?endpoint=http://key:${password}@host`,
      ]
    ) {
      for (const parse of [parseStoreSetting, parseIndexSetting]) {
        try {
          const parsed = parse(text);
          assert("hosts" in parsed, text);
          assertEquals([parsed.password, parsed.hosts[0]!.host], [password, "host"], text);
          assert(!describeEngine(parsed).includes("hunter2"), text);
        } catch (error) {
          assert(error instanceof RangeError, `${text}: ${error}`);
          assert(!error.message.includes("hunter2"), `${text}: ${error.message}`);
        }
      }
    }
  }
});

Deno.test("the parsers throw nothing but RangeError, whatever the text", () => {
  const texts = fc.oneof(
    fc.string(),
    fc.string().map((rest) => `redis://${rest}`),
    fc.string().map((rest) => `s3://${rest}`),
  );
  fc.assert(fc.property(texts, (text) => {
    for (const parse of [parseStoreSetting, parseIndexSetting]) {
      try {
        parse(text);
      } catch (error) {
        assert(error instanceof RangeError, String(error));
      }
    }
  }));
});

const values = (store: string, more: Partial<EngineValues> = {}): EngineValues => ({
  CACHE_STORE: parseStoreSetting(store),
  STORE_REDIRECT: false,
  ...more,
});

Deno.test("an S3 store uses the AWS endpoint of its region by default", () => {
  const problems: string[] = [];
  const account = { AWS_ACCESS_KEY_ID: "id", AWS_SECRET_ACCESS_KEY: "key" };
  const { store } = checkEngines(
    values("s3://bucket/a/b/", { AWS_REGION: "eu-west-1", ...account }),
    problems,
  );
  assertEquals(problems, []);
  assertEquals(store, {
    engine: "s3",
    endpoint: "https://s3.eu-west-1.amazonaws.com",
    region: "eu-west-1",
    bucket: "bucket",
    prefix: "a/b",
    pathStyle: true,
    accessKey: "id",
    secretKey: "key",
    sessionToken: undefined,
  });
  const own = checkEngines(values("s3://bucket?endpoint=http://minio:9000/&region=r"), []).store;
  assertEquals(
    own.engine === "s3" && [own.endpoint, own.region],
    ["http://minio:9000", "r"],
  );
});

Deno.test("incompatible backends are reported as problems", () => {
  const index = parseRedisUrl("redis://r");
  const table: [EngineValues, RegExp | undefined][] = [
    [values("files"), undefined],
    [values("redis://r"), undefined],
    [values("s3://bucket"), undefined],
    [values("s3://bucket", { CACHE_INDEX: index, STORE_REDIRECT: true }), undefined],
    [values("files", { CACHE_INDEX: index }), /CACHE_INDEX/],
    [values("redis://r", { CACHE_INDEX: { engine: "sqlite" } }), /CACHE_INDEX/],
    [values("files", { STORE_REDIRECT: true }), /STORE_REDIRECT/],
    [values("s3://bucket", { AWS_ACCESS_KEY_ID: "id" }), /AWS_ACCESS_KEY_ID/],
  ];
  for (const [given, expected] of table) {
    const problems: string[] = [];
    checkEngines(given, problems);
    assertEquals(problems.length, expected ? 1 : 0, problems.join());
    if (expected) assert(expected.test(problems[0]!), problems[0]);
  }
});

Deno.test("a backend's description parses to the same settings, except for its password", () => {
  const text = "rediss://u:hunter2@a:7000,b:7001/0?prefix=p&cluster=true";
  const described = describeEngine(parseRedisUrl(text));
  assertEquals(described, "rediss://u:********@a:7000,b:7001/0?prefix=p&cluster=true");
  assertEquals(parseRedisUrl(described), { ...parseRedisUrl(text), password: "********" });
});
