"""Parts of a network computed by a few lines of C where that was measured to pay; each has its plain twin in torch."""
