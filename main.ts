/**
 * The command line. Only this file reads arguments and the environment, listens and handles signals.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { askHealth } from "./lib/health.ts";
import { type Config, ConfigError, parseConfig } from "./lib/config.ts";
import { describeConfig } from "./lib/describe.ts";
import { programLog, startLogging } from "./lib/log.ts";
import { VERSION } from "./lib/version.ts";
import { createProxy, type RunningProxy } from "./mod.ts";

const HELP = `deno-docker-proxy ${VERSION}: a caching proxy for container registries

Usage: deno-docker-proxy [command] [flags]

Commands:
  serve      answer clients (the default)
  health     ask a running instance on this host; exit code 0 or 1
  config     print what is in force, secrets masked
  version    print the version
  help       print this

Flags:
  --host ADDRESS     listen there instead of HOST
  --port PORT        listen there instead of PORT
  --env-file FILE    read settings from FILE; the environment wins
  -h, --help         print this
  -v, --version      print the version

Settings are environment variables: see README.md or .env.example.
`;

const COMMANDS = ["serve", "health", "config", "version", "help"] as const;
type Command = typeof COMMANDS[number];

interface CommandLine {
  readonly command: Command;
  readonly flags: { readonly host?: string; readonly port?: string; readonly "env-file"?: string };
}

/** The command line in words. Throws a `ConfigError` that lists every problem. */
function readCommandLine(args: readonly string[]): CommandLine {
  // The predecessor's spelling, still in people's HEALTHCHECK lines.
  const known = args.map((arg) => /^--?health-check$/.test(arg) ? "health" : arg);
  const { values, positionals, tokens } = parseArgs({
    args: known,
    options: {
      "host": { type: "string" },
      "port": { type: "string" },
      "env-file": { type: "string" },
      "help": { type: "boolean", short: "h" },
      "version": { type: "boolean", short: "v" },
    },
    allowPositionals: true,
    strict: false,
    tokens: true,
  });
  const problems: string[] = [];
  const options = new Set(["host", "port", "env-file", "help", "version"]);
  for (const token of tokens) {
    if (token.kind !== "option") continue;
    const takesValue = ["host", "port", "env-file"].includes(token.name);
    if (!options.has(token.name)) problems.push(`${token.rawName}: Unknown flag`);
    else if (takesValue && !token.value) problems.push(`${token.rawName}: Needs a value`);
    else if (!takesValue && token.value !== undefined) {
      problems.push(`${token.rawName}: Takes no value`);
    }
  }
  const [word = "serve", ...rest] = positionals;
  const command = COMMANDS.find((one) => one === word);
  if (!command) problems.push(`${word}: Unknown command`);
  for (const extra of rest) problems.push(`${extra}: Unexpected argument`);
  if (problems.length > 0) throw new ConfigError(problems);
  if (values["help"]) return { command: "help", flags: {} };
  if (values["version"]) return { command: "version", flags: {} };
  return { command: command!, flags: values as CommandLine["flags"] };
}

/** Environment, file and flags as one configuration. Throws a `ConfigError`. */
async function loadConfig({ flags }: CommandLine): Promise<Config> {
  let file: Record<string, string> = {};
  const path = flags["env-file"];
  if (path !== undefined) {
    const { parse } = await import("dotenv");
    try {
      file = parse(Deno.readTextFileSync(path));
    } catch (error) {
      throw new ConfigError([`--env-file: Cannot read: ${(error as Error).message}`]);
    }
  }
  const env = { ...file, ...Deno.env.toObject() };
  if (flags.host !== undefined) env["HOST"] = flags.host;
  if (flags.port !== undefined) env["PORT"] = flags.port;
  return parseConfig(env);
}

/** Listens until a signal comes, then lets transfers finish. Returns the exit code. */
async function serve(config: Config): Promise<number> {
  const endLogging = await startLogging(config.log);
  const proxy = createProxy(config);
  try {
    await proxy.ready;
    const server = listen(config, proxy);
    await stopSignal();
    programLog.info("Stopping: waiting for transfers", { seconds: config.shutdownTimeout / 1000 });
    await stop(server, { proxy, grace: config.shutdownTimeout });
    programLog.info("Stopped");
    return 0;
  } catch (error) {
    programLog.error("Cannot start: {cause}", { cause: (error as Error).message });
    console.error((error as Error).message);
    return 1;
  } finally {
    await endLogging();
  }
}

function listen(config: Config, proxy: RunningProxy): Deno.HttpServer {
  const { host: hostname, port, tls } = config.listen;
  const onListen = (address: Deno.NetAddr) => {
    const scheme = tls ? "https" : "http";
    programLog.info("Listening", {
      url: `${scheme}://${address.hostname}:${address.port}`,
      version: VERSION,
      cache: config.cache?.dir ?? "off",
    });
  };
  const options = { hostname, port, onListen, automaticCompression: false };
  if (!tls) return Deno.serve(options, proxy.fetch);
  const [cert, key] = [Deno.readTextFileSync(tls.cert), Deno.readTextFileSync(tls.key)];
  return Deno.serve({ ...options, cert, key }, proxy.fetch);
}

function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      // Windows knows only SIGINT of these.
      if (Deno.build.os === "windows" && signal === "SIGTERM") continue;
      Deno.addSignalListener(signal, resolve);
    }
  });
}

/** Stops accepting at once; transfers have `grace` ms to finish, and fills what is left of it. */
async function stop(
  server: Deno.HttpServer,
  { proxy, grace }: { proxy: RunningProxy; grace: number },
): Promise<void> {
  const until = performance.now() + grace;
  const finished = server.shutdown();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const limit = new Promise<void>((resolve) => timer = setTimeout(resolve, grace));
  await Promise.race([finished, limit]);
  clearTimeout(timer);
  await proxy.close({ grace: Math.max(0, until - performance.now()) });
}

async function run(line: CommandLine): Promise<number> {
  switch (line.command) {
    case "help":
      console.log(HELP);
      return 0;
    case "version":
      console.log(VERSION);
      return 0;
    case "config":
      console.log(describeConfig(await loadConfig(line)));
      return 0;
    case "health":
      return await askHealth((await loadConfig(line)).listen) ? 0 : 1;
    case "serve":
      return await serve(await loadConfig(line));
  }
}

/** Runs the command line `args`. Returns the exit code: 2 for a command line or configuration to mend. */
async function main(args: readonly string[]): Promise<number> {
  try {
    return await run(readCommandLine(args));
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    for (const problem of error.problems) console.error(problem);
    return 2;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
