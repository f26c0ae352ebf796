# The proxy as a NixOS service:
#   imports = [ ./contrib/nixos/module.nix ];
#   services.deno-docker-proxy = {
#     enable = true;
#     package = …;                     # with bin/deno-docker-proxy, made by `deno task compile`
#     settings = { CUSTOM_DOMAIN = "proxy.example.com"; CACHE_MAX_SIZE = "200GiB"; };
#     environmentFile = "/run/keys/deno-docker-proxy.env";      # secrets: UPSTREAM_DOCKER_PASSWORD=…
#   };
{ config, lib, ... }:

let
  cfg = config.services.deno-docker-proxy;
  inherit (lib) mkEnableOption mkIf mkOption types;
  port = cfg.settings.PORT or 8080;
in
{
  options.services.deno-docker-proxy = {
    enable = mkEnableOption "the caching proxy for container registries";

    package = mkOption {
      type = types.package;
      description = "The package with bin/deno-docker-proxy.";
    };

    settings = mkOption {
      type = types.attrsOf (types.oneOf [ types.bool types.int types.str ]);
      default = { };
      example = { CUSTOM_DOMAIN = "proxy.example.com"; WARM_IMAGES = "nginx:1.27 alpine:3"; };
      description = "Settings by name, as in .env.example. They end up in the Nix store: put no secrets here.";
    };

    environmentFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      description = "A file with further settings, for secrets.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether clients on other machines may reach the port.";
    };
  };

  config = mkIf cfg.enable {
    networking.firewall.allowedTCPPorts = lib.optional cfg.openFirewall (lib.toInt (toString port));

    systemd.services.deno-docker-proxy = {
      description = "Caching proxy for container registries";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];

      environment = {
        CACHE_DIR = "/var/cache/deno-docker-proxy/cache";
      } // lib.mapAttrs (_: value: if lib.isBool value then lib.boolToString value else toString value) cfg.settings;

      # The same as in contrib/systemd/deno-docker-proxy.service; a test compares the two.
      serviceConfig = {
        Type = "exec";
        ExecStart = "${cfg.package}/bin/deno-docker-proxy serve";
        # The allocator returns unused memory to the system.
        Environment = "DENO_USR2_MEMORY_TRIM=1";
        EnvironmentFile = lib.optional (cfg.environmentFile != null) cfg.environmentFile;
        WorkingDirectory = "/var/cache/deno-docker-proxy";
        Restart = "on-failure";
        RestartSec = 2;
        # Longer than SHUTDOWN_TIMEOUT: transfers may finish.
        TimeoutStopSec = 40;
        KillSignal = "SIGTERM";
        LimitNOFILE = 65536;

        DynamicUser = true;
        CacheDirectory = "deno-docker-proxy";
        CacheDirectoryMode = "0700";
        # For ports below 1024.
        AmbientCapabilities = "CAP_NET_BIND_SERVICE";
        CapabilityBoundingSet = "CAP_NET_BIND_SERVICE";

        NoNewPrivileges = true;
        ProtectSystem = "strict";
        ProtectHome = true;
        PrivateTmp = true;
        PrivateDevices = true;
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        RestrictAddressFamilies = "AF_INET AF_INET6 AF_UNIX";
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        LockPersonality = true;
        RemoveIPC = true;
        UMask = "0077";
        SystemCallArchitectures = "native";
        SystemCallFilter = [ "@system-service" "~@privileged @resources" ];
        SystemCallErrorNumber = "EPERM";
      };
    };
  };
}
