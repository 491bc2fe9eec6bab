exec @run
