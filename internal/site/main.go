// Command site writes the documentation as a website into a folder.
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: site ROOT OUT")
	}
	files, err := Build(os.DirFS(os.Args[1]))
	if err != nil {
		log.Fatal(err)
	}
	for name, content := range files {
		file := filepath.Join(os.Args[2], filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			log.Fatal(err)
		}
		if err := os.WriteFile(file, content, 0o644); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Printf("%d files in %s\n", len(files), os.Args[2])
}
