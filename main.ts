/**
 * The command line. Only this file reads arguments and the environment, listens and handles signals.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { askHealth } from "./lib/health.ts";
import { type Config, ConfigError, parseConfig } from "./lib/config.ts";
import { describeConfig } from "./lib/describe.ts";
import { surviveErrors } from "./lib/last_resort.ts";
import { listen as listenFor, type Listener } from "./lib/listener.ts";
import { programLog, startLogging } from "./lib/log.ts";
import { Proxy } from "./lib/proxy.ts";
import { VERSION } from "./lib/version.ts";

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

/** A second signal cut transfers off: what a shell says of a program that SIGINT ended. */
const EXIT_CUT = 130;

const COMMANDS = ["serve", "health", "config", "version", "help"] as const;
type Command = typeof COMMANDS[number];

interface CommandLine {
  readonly command: Command;
  readonly flags: { readonly host?: string; readonly port?: string; readonly "env-file"?: string };
  /** What is wrong with it: told together with what is wrong with the settings. */
  readonly problems: readonly string[];
}

/** The command line in words. */
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
  const asked = values["help"] ? "help" : values["version"] ? "version" : command;
  // A flag whose value is missing is `true` here; it is among the problems already.
  const text = (name: string) => typeof values[name] === "string" ? values[name] : undefined;
  const flags = { host: text("host"), port: text("port"), "env-file": text("env-file") };
  return { command: asked ?? "help", flags, problems };
}

/** Environment, file and flags as one configuration. Throws a `ConfigError` with every problem. */
async function loadConfig({ flags, ...line }: CommandLine): Promise<Config> {
  const problems = [...line.problems];
  let file: Record<string, string> = {};
  const path = flags["env-file"];
  if (path) {
    const { parse } = await import("dotenv");
    try {
      file = parse(Deno.readTextFileSync(path));
    } catch (error) {
      problems.push(`--env-file: Cannot read: ${(error as Error).message}`);
    }
  }
  const env = { ...file, ...Deno.env.toObject() };
  if (flags.host) env["HOST"] = flags.host;
  if (flags.port) env["PORT"] = flags.port;
  try {
    const config = parseConfig(env);
    if (problems.length === 0) return config;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    problems.push(...error.problems);
  }
  throw new ConfigError(problems);
}

/** Listens until a signal comes, then lets transfers finish. Returns the exit code. */
async function serve(config: Config): Promise<number> {
  const tls = readTls(config);
  const endLogging = await startLogging(config.log);
  surviveErrors();
  const proxy = new Proxy(config);
  try {
    await proxy.ready;
    const server = listen(config, { tls, proxy });
    const signals = stopSignals();
    await signals.first;
    programLog.info("Stopping: waiting for transfers", { seconds: config.shutdownTimeout / 1000 });
    const grace = config.shutdownTimeout;
    const isCut = await stop(server, { proxy, grace, cut: signals.second });
    programLog.info(isCut ? "Stopped at once, by a second signal" : "Stopped");
    return isCut ? EXIT_CUT : 0;
  } catch (error) {
    programLog.error("Cannot start: {cause}", { cause: (error as Error).message });
    return 1;
  } finally {
    await endLogging();
  }
}

interface Tls {
  readonly cert: string;
  readonly key: string;
}

/** The certificate and key that are configured. Throws a `ConfigError` for what cannot be read. */
function readTls({ listen: { tls } }: Config): Tls | undefined {
  if (!tls) return undefined;
  const problems: string[] = [];
  const read = (name: string, path: string) => {
    try {
      return Deno.readTextFileSync(path);
    } catch (error) {
      problems.push(`${name}: Cannot read: ${(error as Error).message}`);
      return "";
    }
  };
  const pem = { cert: read("TLS_CERT", tls.cert), key: read("TLS_KEY", tls.key) };
  if (problems.length > 0) throw new ConfigError(problems);
  return pem;
}

function listen(
  config: Config,
  { tls, proxy }: { tls: Tls | undefined; proxy: Proxy },
): Listener {
  const { host: hostname, port } = config.listen;
  const urlOf = (address: { hostname: string; port: number }) => {
    const host = address.hostname.includes(":") ? `[${address.hostname}]` : address.hostname;
    return `${tls ? "https" : "http"}://${host}:${address.port}`;
  };
  const onListen = (address: Deno.NetAddr) => {
    programLog.info("Listening", {
      url: urlOf(address),
      version: VERSION,
      cache: config.cache?.dir ?? "off",
    });
  };
  try {
    return listenFor(proxy, { hostname, port, tls, onListen });
  } catch (error) {
    const isTaken = error instanceof Deno.errors.AddrInUse;
    const reason = isTaken ? "the port is in use" : (error as Error).message;
    throw new Error(`Cannot listen at ${urlOf({ hostname, port })}: ${reason}`, { cause: error });
  }
}

/** Signals that ask to stop: the first begins it, the second cuts it short. */
function stopSignals(): { first: Promise<void>; second: Promise<void> } {
  const arrivals = [Promise.withResolvers<void>(), Promise.withResolvers<void>()] as const;
  let count = 0;
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    // Windows knows only SIGINT of these.
    if (Deno.build.os === "windows" && signal === "SIGTERM") continue;
    Deno.addSignalListener(signal, () => arrivals[count++]?.resolve());
  }
  return { first: arrivals[0].promise, second: arrivals[1].promise };
}

/**
 * Stops accepting at once; transfers have `grace` ms to finish, and fills what is left of it. Returns
 * whether `cut` came before that.
 */
async function stop(
  server: Listener,
  { proxy, grace, cut }: { proxy: Proxy; grace: number; cut: Promise<void> },
): Promise<boolean> {
  const until = performance.now() + grace;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const limit = new Promise<void>((resolve) => timer = setTimeout(resolve, grace));
  const finishing = Promise.race([server.shutdown(), limit]).then(async () => {
    await proxy.close({ grace: Math.max(0, until - performance.now()) });
    return false;
  });
  const isCut = await Promise.race([finishing, cut.then(() => true)]);
  clearTimeout(timer);
  if (isCut) await proxy.close();
  return isCut;
}

async function run(line: CommandLine): Promise<number> {
  if (line.problems.length > 0) await loadConfig(line); // throws them all
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
