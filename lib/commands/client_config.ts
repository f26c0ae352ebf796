/**
 * `config CLIENT`: what makes a client use this proxy.
 *
 * @module
 */
import { clientConfig, type ClientKind, type Instance } from "../operator/client_config.ts";
import type { Output } from "./output.ts";

/** Options for {@linkcode runClientConfig}. */
export interface ClientConfigOptions {
  readonly kind: ClientKind;
  readonly instance: Instance;
  readonly json: boolean;
  readonly output: Output;
}

/**
 * Prints the files. Where there is one it is all of standard output, so that it can be sent to where it
 * belongs; what people want to know beside it is on the other one. Returns the exit code 0.
 */
export function runClientConfig({ kind, instance, json, output }: ClientConfigOptions): number {
  const config = clientConfig(kind, instance);
  const { files, steps } = config;
  if (json) {
    output.print(JSON.stringify(config));
    return 0;
  }
  const isOne = files.length === 1;
  for (const { path, text } of files) {
    if (isOne) output.printError(`# ${path}`);
    else output.print(`# ${path}`);
    output.print(isOne ? text.trimEnd() : text);
  }
  if (steps.length > 0) output.printError("# Then:");
  for (const step of steps) output.printError(step);
  return 0;
}
