"""What ties the processes together: config, ledger, admission, weight exchange, the loop, the command line."""
