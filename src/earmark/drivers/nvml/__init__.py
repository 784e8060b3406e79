"""NVIDIA GPUs as their own library tells of them: `driver.NvmlDriver` asks, in a process of its own."""
