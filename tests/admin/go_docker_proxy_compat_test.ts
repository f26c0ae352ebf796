import { assertEquals } from "@std/assert";
import { formatGoDuration, formatGoSize } from "../../lib/admin/go_docker_proxy_compat.ts";

Deno.test("durations are printed as Go prints them", () => {
  const table: [number, string][] = [
    [0, "0s"],
    [1, "1ms"],
    [999.6, "1s"],
    [1500, "1.5s"],
    [60_000, "1m0s"],
    [62_500, "1m2.5s"],
    [3_600_000, "1h0m0s"],
    [300_000, "5m0s"],
    [24 * 3_600_000, "24h0m0s"],
    [365 * 24 * 3_600_000, "8760h0m0s"],
    [3_723_004, "1h2m3.004s"],
  ];
  for (const [ms, expected] of table) assertEquals(formatGoDuration(ms), expected);
});

Deno.test("sizes are printed as go-docker-proxy prints them", () => {
  const table: [number, string][] = [
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1.00 KB"],
    [1536, "1.50 KB"],
    [2 ** 20, "1.00 MB"],
    [10 * 2 ** 30, "10.00 GB"],
    [2 ** 50, "1.00 PB"],
  ];
  for (const [bytes, expected] of table) assertEquals(formatGoSize(bytes), expected);
});
