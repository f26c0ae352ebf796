/**
 * The command line. Only this file reads arguments and the environment, listens, and handles signals.
 *
 * @module
 */
import { type CommandLine, HELP, readCommandLine } from "./lib/commands/command_line.ts";
import type { Operated } from "./lib/commands/operate.ts";
import type { Output } from "./lib/commands/output.ts";
import { describePermissions, narrowPermissions } from "./lib/commands/permissions.ts";
import { askHealth } from "./lib/server/health.ts";
import { type Config, ConfigError, parseConfig } from "./lib/config/config.ts";
import { describeConfig, settingsInForce } from "./lib/config/describe.ts";
import { OUTBOUND } from "./lib/config/warnings.ts";
import { handleUncaughtErrors } from "./lib/telemetry/uncaught_errors.ts";
import { listen as listenFor, type Listener } from "./lib/server/listener.ts";
import { programLog, startLogging } from "./lib/telemetry/log.ts";
import { Proxy } from "./lib/proxy/proxy.ts";
import { VERSION } from "./lib/util/version.ts";

/** Exit code after a second signal cut transfers short: the code that shells report for SIGINT. */
const EXIT_CUT = 130;

/**
 * Reads the environment, an environment file and the flags into one configuration, then revokes the
 * permissions that it does not need. Throws a `ConfigError` that lists every problem.
 */
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
  const own = Deno.env.toObject();
  for (const name of OUTBOUND) {
    // Deno itself reads these when it first connects.
    if (file[name] && own[name] === undefined) Deno.env.set(name, file[name]);
  }
  const env = { ...file, ...own };
  if (flags.host) env["HOST"] = flags.host;
  if (flags.port) env["PORT"] = flags.port;
  try {
    const config = parseConfig(env, { file: Object.keys(file) });
    if (problems.length === 0) {
      narrowPermissions(config);
      return config;
    }
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    problems.push(...error.problems);
  }
  throw new ConfigError(problems);
}

/** Serves until a signal arrives, then lets transfers finish. Returns the exit code. */
async function serve(config: Config): Promise<number> {
  const tls = readTls(config);
  const endLogging = await startLogging(config.log);
  handleUncaughtErrors();
  programLog.debug("Files to read: {read}; to write: {write}", () => describePermissions(config));
  for (const warning of config.warnings) programLog.warn("{doubt}", { doubt: warning });
  const proxy = new Proxy(config);
  try {
    await proxy.ready;
    const server = await listen(config, { tls, proxy });
    const admin = await listenForOperator(config, proxy);
    const signals = stopSignals();
    await signals.first;
    programLog.info("Shutting down: waiting for transfers to finish", {
      seconds: config.shutdownTimeout / 1000,
    });
    const grace = config.shutdownTimeout;
    const isCut = await stop(server, { proxy, grace, cut: signals.second });
    await admin?.close();
    programLog.info(isCut ? "Stopped immediately by a second signal" : "Stopped");
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

/** Reads the configured certificate and key. Throws a `ConfigError` that names unreadable files. */
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

async function listen(
  config: Config,
  { tls, proxy }: { tls: Tls | undefined; proxy: Proxy },
): Promise<Listener> {
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
    return await listenFor(proxy, { hostname, port, tls, onListen });
  } catch (error) {
    const isTaken = error instanceof Deno.errors.AddrInUse;
    const reason = isTaken ? "the port is in use" : (error as Error).message;
    throw new Error(`Cannot listen at ${urlOf({ hostname, port })}: ${reason}`, { cause: error });
  }
}

/**
 * Starts the operator's listener, if it is on. Throws if `ADMIN_ADDR` was set explicitly and listening
 * fails.
 */
async function listenForOperator(
  { admin }: Config,
  proxy: Proxy,
): Promise<{ close(): Promise<void> } | undefined> {
  if (!admin) return undefined;
  // Loaded late, so that it does not delay the proxy's start.
  const { startAdmin } = await import("./lib/admin/server.ts");
  try {
    const server = startAdmin(proxy, admin);
    const { hostname, port } = server.addr;
    programLog.info("Operator's listener started", { url: `http://${hostname}:${port}` });
    return server;
  } catch (error) {
    const where = `${admin.host}:${admin.port}`;
    const isTaken = error instanceof Deno.errors.AddrInUse;
    const reason = isTaken ? "the port is in use" : (error as Error).message;
    const problem = `Cannot start the operator's listener at ${where}: ${reason}`;
    if (admin.isWanted) throw new Error(problem, { cause: error });
    programLog.warn("{problem}: set ADMIN_ADDR to another address, or to off", { problem });
  }
}

/** Calls `onStop` for SIGINT and SIGTERM: the first signal starts the shutdown, the second cuts it short. */
function stopSignals(): { first: Promise<void>; second: Promise<void> } {
  const arrivals = [Promise.withResolvers<void>(), Promise.withResolvers<void>()] as const;
  let count = 0;
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    // Windows does not support SIGTERM.
    if (Deno.build.os === "windows" && signal === "SIGTERM") continue;
    Deno.addSignalListener(signal, () => arrivals[count++]?.resolve());
  }
  return { first: arrivals[0].promise, second: arrivals[1].promise };
}

/**
 * Stops accepting at once. Transfers have `grace` ms to finish, and downloads into the cache the rest of
 * that time. Returns whether `cut` ended the wait.
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

/** Standard output and, if standard error is a terminal, the terminal. */
function output(): Output {
  const isWatched = Deno.stderr.isTerminal();
  const encoder = new TextEncoder();
  const write = (text: string) => {
    const bytes = encoder.encode(text);
    for (let done = 0; done < bytes.byteLength;) {
      done += Deno.stderr.writeSync(bytes.subarray(done));
    }
  };
  return {
    print: (line) => console.log(line),
    printError: (line) => console.error(line),
    terminal: isWatched ? { columns: Deno.consoleSize().columns, write } : undefined,
  };
}

/** Runs a command on the cache, in this process or in the running instance. Returns the exit code. */
async function onCache(
  line: CommandLine,
  work: (operations: Operated["operations"], signal: AbortSignal) => Promise<number>,
): Promise<number> {
  const { operate } = await import("./lib/commands/operate.ts");
  const config = await loadConfig(line);
  const interrupted = new AbortController();
  stopSignals().first.then(() => interrupted.abort(new Error("Interrupted")));
  try {
    const operated = await operate(config, { creates: line.command === "warm" });
    try {
      return await work(operated.operations, interrupted.signal);
    } finally {
      await operated.close();
    }
  } catch (error) {
    console.error((error as Error).message);
    return interrupted.signal.aborted ? EXIT_CUT : 1;
  }
}

async function run(line: CommandLine): Promise<number> {
  if (line.problems.length > 0) await loadConfig(line); // throws all of them
  const { command, args, flags: { json, platforms, url } } = line;
  switch (command) {
    case "help":
      console.log(HELP);
      return 0;
    case "version":
      console.log(VERSION);
      return 0;
    case "config": {
      const config = await loadConfig(line);
      if (!line.client) {
        for (const warning of config.warnings) console.error(warning);
        console.log(json ? JSON.stringify(settingsInForce(config)) : describeConfig(config));
        return 0;
      }
      const { runClientConfig } = await import("./lib/commands/client_config.ts");
      const { instanceOf } = await import("./lib/operator/client_config.ts");
      const instance = instanceOf(config, url);
      return runClientConfig({ kind: line.client, instance, json, output: output() });
    }
    case "health":
      return await askHealth((await loadConfig(line)).listen) ? 0 : 1;
    case "serve":
      return await serve(await loadConfig(line));
    case "warm": {
      const { runWarm } = await import("./lib/commands/warm.ts");
      return await onCache(
        line,
        (operations, signal) =>
          runWarm({ operations, images: args, platforms, json, output: output(), signal }),
      );
    }
    case "ls": {
      const { runList } = await import("./lib/commands/images.ts");
      return await onCache(
        line,
        (operations) => runList({ operations, patterns: args, json, output: output() }),
      );
    }
    case "rm": {
      const { runRemove } = await import("./lib/commands/images.ts");
      return await onCache(
        line,
        (operations) => runRemove({ operations, images: args, json, output: output() }),
      );
    }
    case "stats": {
      const { runStats } = await import("./lib/commands/stats.ts");
      return await onCache(line, (operations) => runStats({ operations, json, output: output() }));
    }
    case "verify": {
      const { runVerify } = await import("./lib/commands/verify.ts");
      const config = await loadConfig(line);
      const { print, printError, terminal } = output();
      const interrupted = new AbortController();
      stopSignals().first.then(() => interrupted.abort(new Error("Interrupted")));
      const printProgress = terminal && ((text: string) => terminal.write(`\r\x1b[K${text}`));
      const code = await runVerify({
        config,
        json,
        print,
        printError,
        printProgress,
        signal: interrupted.signal,
      });
      terminal?.write("\r\x1b[K");
      return interrupted.signal.aborted ? EXIT_CUT : code;
    }
  }
}

/** Runs the command line `args`. Returns the exit code: 2 for an invalid command line or configuration. */
async function main(args: readonly string[]): Promise<number> {
  try {
    return await run(readCommandLine(args));
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    for (const problem of error.problems) console.error(problem);
    return 2;
  }
}

/** Makes new files private to their owner, if Deno permits that. Cache files are private in any case. */
function keepPrivate(): void {
  const mayMask = Deno.build.os !== "windows" &&
    Deno.permissions?.querySync({ name: "sys" }).state === "granted";
  if (mayMask) Deno.umask(0o077);
}

if (import.meta.main) {
  keepPrivate();
  Deno.exit(await main(Deno.args));
}
