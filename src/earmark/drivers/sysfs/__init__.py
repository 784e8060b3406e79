"""The Linux host as /sys and /proc describe it: `observe.SysfsDriver` looks, `discovery.discovery_json` shows."""
