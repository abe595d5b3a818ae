"""An exported network in a folder of its own, with what its next user needs beside it."""
