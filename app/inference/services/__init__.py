"""One module for each family of services, with `services(settings) -> list[Service]`.

The registry walks this package: adding a service is adding a file. A module imports its heavy packages only
when a service is used, so that the command line stays quick and a missing extra breaks nothing.
"""
