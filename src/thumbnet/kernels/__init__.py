"""Parts of networks and of their training in C or Triton, where that was measured to pay; each has a plain twin in torch."""
