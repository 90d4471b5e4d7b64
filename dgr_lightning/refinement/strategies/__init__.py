"""The strategies, a file each: its class stands under the name `STRATEGY`."""
